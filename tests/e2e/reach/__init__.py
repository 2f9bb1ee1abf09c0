"""Every way from a device to its broker and object store, each where no other way leads out."""
