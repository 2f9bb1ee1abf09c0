// Every scope of a token. A test compares them with those of the server.
export const SCOPES = [
  "clients:read",
  "clients:admin",
  "files:list",
  "uploads:read",
  "uploads:write",
  "objects:read",
  "jobs:read",
  "jobs:write",
  "devices:admin",
  "audit:read",
  "metrics:read",
];
