//! Disagreements that are understood: who is right, and why.

use tls_parser::parse_tls_message_handshake;
use tlstrace::engine::facts::Role;

use super::conversation::{Packet, stream};
use super::mutation::records;
use super::reading::Reading;

/// A disagreement with all that there is to know about it.
pub(super) struct Case<'a> {
    pub(super) field: &'a str,
    pub(super) theirs: &'a Reading,
    pub(super) ours: &'a Reading,
    pub(super) packets: &'a [Packet],
}

/// Why the two differ, if that is known.
pub(super) fn explain(case: &Case<'_>) -> Option<&'static str> {
    EXPLANATIONS.iter().find(|(_, applies)| applies(case)).map(|(why, _)| *why)
}

const BOTH: [Role; 2] = [Role::Client, Role::Server];

type Applies = fn(&Case<'_>) -> bool;

const EXPLANATIONS: &[(&str, Applies)] = &[
    ("tshark takes for encrypted what follows a ChangeCipherSpec, also before the hello", |case| {
        case.is_shown_by_us_only() && BOTH.iter().any(|role| case.has_early_change_cipher_spec(*role))
    }),
    ("tshark shows nothing of a record before all of it has come, nor of what follows a hole", |case| {
        case.is_shown_by_us_only() && BOTH.iter().any(|role| !case.is_whole(*role))
    }),
    ("tshark stumbles over an empty handshake record, which RFC 8446 section 5.1 forbids", |case| {
        case.is_shown_by_us_only() && BOTH.iter().any(|role| case.has_empty_handshake_record(*role))
    }),
    ("tlstrace takes for encrypted what follows a ChangeCipherSpec where no RFC allows one", |case| {
        case.is_shown_by_tshark_only() && BOTH.iter().any(|role| case.has_early_change_cipher_spec(*role))
    }),
    (
        "tshark takes a record of no version of SSL 3.0 to TLS 1.2 for data, and an alert before a ClientHello is whole",
        |case| {
            let is_odd = BOTH.iter().any(|role| case.has_odd_version(*role));
            let is_early = case.field == "alerts" && case.theirs.client_hello.is_none();
            case.is_shown_by_us_only() && (is_odd || is_early)
        },
    ),
    ("tlstrace ends where no record can begin; tshark tries again with the next segment", |case| {
        case.is_shown_by_tshark_only() && case.ours.is_broken
    }),
    ("tshark shows a hello that cannot be read, as tls-parser too finds", |case| {
        case.is_shown_by_tshark_only() && BOTH.iter().any(|role| case.has_unreadable_hello(*role))
    }),
    ("tlstrace has read to the end of the handshake when the alert comes", |case| {
        case.field == "alerts" && case.is_shown_by_tshark_only() && case.ours.is_complete
    }),
    ("tshark shows alerts of a level that there is not", |case| {
        let mut theirs = case.theirs.alerts.clone();
        theirs.retain(|(_, level, _)| matches!(level, 1 | 2));
        case.field == "alerts" && theirs == case.ours.alerts
    }),
    ("tshark looks for a session id, which ServerHello lost in drafts 14 to 21 of TLS 1.3", |case| {
        let version = case.ours.server_hello.as_ref().map(|hello| hello.version);
        case.field.contains("server")
            && version.is_some_and(|version| matches!(version, 0x0304 | 0x7f00..=0x7f15))
    }),
    (
        "tshark does not mind bytes behind the extensions, server names of no known kind, and odd binders",
        |case| {
            let is_known = |fault: &String| TSHARK_ACCEPTS.contains(&fault.as_str());
            case.faults().is_some_and(|(theirs, ours)| theirs.is_empty() && ours.iter().all(is_known))
        },
    ),
    ("tlstrace does not look into extensions of which no rule makes anything", |case| {
        case.faults().is_some_and(|(theirs, ours)| !theirs.is_empty() && ours.is_empty())
    }),
];

const TSHARK_ACCEPTS: [&str; 3] = [
    "bytes are left after the end of the message",
    "extension server_name is malformed",
    "extension pre_shared_key is malformed",
];

impl Case<'_> {
    fn shown(&self) -> (bool, bool) {
        match self.field {
            "client hello" => (self.theirs.client_hello.is_some(), self.ours.client_hello.is_some()),
            "server hello" => (self.theirs.server_hello.is_some(), self.ours.server_hello.is_some()),
            "alerts" => {
                let (theirs, ours) = (&self.theirs.alerts, &self.ours.alerts);
                (!theirs.is_subset(ours), !ours.is_subset(theirs))
            }
            _ => (false, false),
        }
    }

    fn is_shown_by_us_only(&self) -> bool {
        self.shown() == (false, true)
    }

    fn is_shown_by_tshark_only(&self) -> bool {
        self.shown() == (true, false)
    }

    fn faults(&self) -> Option<(&[String], &[String])> {
        let (theirs, ours) = match self.field {
            "faults of the client hello" => (&self.theirs.client_hello, &self.ours.client_hello),
            "faults of the server hello" => (&self.theirs.server_hello, &self.ours.server_hello),
            _ => return None,
        };
        Some((&theirs.as_ref()?.faults, &ours.as_ref()?.faults))
    }

    /// Handshake records follow one.
    fn has_early_change_cipher_spec(&self, role: Role) -> bool {
        let (bytes, _) = stream(self.packets, role);
        let mut kinds = records(&bytes).filter_map(|(at, _)| bytes.get(at));
        kinds.any(|kind| *kind == 20) && kinds.any(|kind| *kind == 22)
    }

    fn has_empty_handshake_record(&self, role: Role) -> bool {
        let (bytes, _) = stream(self.packets, role);
        records(&bytes).any(|(at, content)| bytes.get(at) == Some(&22) && content.is_empty())
    }

    /// Nothing is missing, and all of it is records that are whole.
    fn is_whole(&self, role: Role) -> bool {
        let (bytes, has_hole) = stream(self.packets, role);
        let end = records(&bytes).last().map_or(0, |(at, content)| at + 5 + content.len());
        !has_hole && end == bytes.len()
    }

    fn has_odd_version(&self, role: Role) -> bool {
        let (bytes, _) = stream(self.packets, role);
        records(&bytes).any(|(at, _)| bytes.get(at + 2).is_some_and(|minor| *minor > 3))
    }

    fn has_unreadable_hello(&self, role: Role) -> bool {
        let (bytes, _) = stream(self.packets, role);
        let handshake: Vec<u8> = records(&bytes)
            .filter(|(at, _)| bytes.get(*at) == Some(&22))
            .flat_map(|(_, content)| content.iter().copied())
            .collect();
        matches!(handshake.first(), Some(1 | 2)) && parse_tls_message_handshake(&handshake).is_err()
    }
}
