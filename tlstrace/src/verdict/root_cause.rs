//! The reaction filter: which of the endings of a connection is the cause, and which ones only follow.
//!
//! The last thing on the wire is rarely the reason. OpenSSL answers a FIN in mid-handshake with
//! `decode_error`, JSSE with `handshake_failure`, and a close with unread data becomes a RST whatever alert
//! went before it. Endings come in causal order (see `engine::facts`), so the first one that cannot be a
//! reaction to another is the root; the table is `DIAGNOSIS.md` §1.3.

use smallvec::SmallVec;

use crate::engine::facts::{Ending, HandshakeFacts, How, Reset, Role};
use crate::engine::resets::LocalReset;

use super::{Evidence, words};

/// The ending that explains the others.
#[derive(Clone, Debug, Default)]
pub struct RootCause {
    pub ending: Option<Ending>,
    /// What followed from it.
    pub reactions: SmallVec<[Reaction; 2]>,
    /// A RST that cannot have come from the side it claims, or that the connection survived.
    pub suspicious_reset: Option<Ending>,
    /// The root is a RST, and the side that it claims to come from went on sending.
    pub is_contradicted: bool,
}

/// An ending that another one explains.
#[derive(Clone, Copy, Debug)]
pub struct Reaction {
    pub ending: Ending,
    pub why: &'static str,
}

impl RootCause {
    pub fn of(facts: &HandshakeFacts) -> Self {
        let mut root = Self::default();
        for ending in &facts.endings {
            if let How::Reset(reset) = ending.how
                && was_survived(facts, ending, reset)
            {
                root.suspicious_reset.get_or_insert(*ending);
            } else if let Some(cause) = &root.ending {
                root.reactions.push(Reaction { ending: *ending, why: why_it_follows(cause, ending) });
            } else {
                root.is_contradicted = matches!(ending.how, How::Reset(_)) && went_on(facts, ending);
                root.ending = Some(*ending);
            }
        }
        root
    }

    /// The root, if it is a reset by `role`.
    pub fn reset_by(&self, role: Role) -> Option<(&Ending, Reset)> {
        match &self.ending {
            Some(ending) if ending.role == role => match ending.how {
                How::Reset(reset) => Some((ending, reset)),
                How::Alert(_) | How::Close => None,
            },
            _ => None,
        }
    }

    /// What this node's kernel says of the root, if it is a reset that it sent.
    pub fn report<'a>(&self, facts: &'a HandshakeFacts) -> Option<&'a LocalReset> {
        match self.ending?.how {
            How::Reset(reset) => facts.report_of(&reset),
            How::Alert(_) | How::Close => None,
        }
    }

    /// The root, if it is a FIN by `role`.
    pub fn close_by(&self, role: Role) -> Option<&Ending> {
        self.ending.as_ref().filter(|ending| ending.role == role && ending.how == How::Close)
    }

    /// The root, if it is an alert by `role`.
    pub fn alert_by(&self, role: Role) -> Option<(&Ending, crate::tls::alert::Alert)> {
        match &self.ending {
            Some(ending) if ending.role == role => match ending.how {
                How::Alert(alert) => Some((ending, alert)),
                How::Reset(_) | How::Close => None,
            },
            _ => None,
        }
    }

    /// What followed the root, as evidence.
    pub fn evidence(&self) -> impl Iterator<Item = Evidence> + '_ {
        let reactions = self.reactions.iter().map(|reaction| Evidence {
            fact: "reaction",
            detail: [&words::ending(&reaction.ending), ", ", reaction.why].concat().into(),
        });
        let suspicious = self.suspicious_reset.iter().map(|ending| Evidence {
            fact: "suspicious_reset",
            detail: format!("{}, {}", words::ending(ending), why_it_is_suspicious(ending)).into(),
        });
        reactions.chain(suspicious)
    }
}

/// Whether the receiver of a RST cannot have believed it (RFC 5961 §3.2), or the conversation went on after it: a RST
/// that does not fit the window needs less proof than one that does.
fn was_survived(facts: &HandshakeFacts, ending: &Ending, reset: Reset) -> bool {
    let spoke_later = |role| facts.peer(role).last_payload.is_some_and(|last| last > ending.time);
    if reset.out_of_window {
        return facts.is_complete_capture() || spoke_later(Role::Client) || spoke_later(Role::Server);
    }
    went_on(facts, ending) && spoke_later(ending.role.peer())
}

/// Whether the side that a RST claims to come from sent new payload after it.
fn went_on(facts: &HandshakeFacts, reset: &Ending) -> bool {
    let sender = facts.peer(reset.role);
    sender.last_payload.is_some_and(|last| last > reset.time) && sender.bytes > reset.position
}

fn why_it_is_suspicious(reset: &Ending) -> &'static str {
    match reset.how {
        How::Reset(Reset { out_of_window: true, .. }) => "outside the window, where its receiver ignores it",
        _ => "and the connection went on",
    }
}

fn why_it_follows(cause: &Ending, reaction: &Ending) -> &'static str {
    let same_side = cause.role == reaction.role;
    match (cause.how, reaction.how) {
        (How::Alert(_), How::Close) if same_side => "after its own alert",
        (How::Alert(_), How::Reset(_)) if same_side => "closing with unread data after its own alert",
        (How::Alert(_), How::Alert(_)) if same_side => "after its own first alert",
        (How::Alert(_), _) => "in answer to the alert",
        (How::Close, How::Reset(_)) if same_side => "for data that came after it had closed",
        (How::Close, _) => "in answer to the close",
        (How::Reset(_), _) => "after the reset",
    }
}
