//! Names of maps and programs, as the object file and userspace both spell them.
