//! That network interfaces come, change and go, in the network namespace of the calling thread (rtnetlink(7)).

use std::io;

use super::netlink::Subscription;
use super::rtnetlink::{self, Message};

/// Tells that something changed, not what.
pub struct LinkChanges(Subscription);

impl LinkChanges {
    /// Listens from now on; needs a tokio runtime around it.
    pub fn listen() -> io::Result<Self> {
        rtnetlink::follow_links().map(Self)
    }

    /// Waits for the next change.
    pub async fn next(&mut self) {
        // If messages were lost (`ENOBUFS`), something has changed all the more.
        let _ = self.0.next::<Message>().await;
    }
}
