//! The share of a busy CPU that this process has.

use std::io;

/// What is asked for, beyond what the user did with nice(1): as much as auditd asks for (`priority_boost` of auditd.conf(5)).
const BOOST: i32 = -4;

/// Asks for a larger share than others have, for the calling thread and those that it starts; needs `CAP_SYS_NICE`.
///
/// What is not taken out of the ring in time is lost. Where three busy threads share a CPU with this one, an equal share of it
/// is not enough to keep up with the handshakes that they make. What this one needs it needs anyway, so others have no
/// less of it: they only wait.
pub fn raise() -> io::Result<()> {
    rustix::process::nice(BOOST)?;
    Ok(())
}
