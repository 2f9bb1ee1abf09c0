"""Bad days of a device: its clock, its disk, its network; and what the agent writes on a good one.

Rule: the real agent program, broker, control plane and strict S3 server. The agent waits, keeps what it has, reports
the reason, and goes on without a person.
"""
