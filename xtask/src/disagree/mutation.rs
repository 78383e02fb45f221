//! Ways to say the same differently, or to say something else.

use tlstrace_common::event::TcpFlags;

use super::conversation::{Conversation, Packet, packets};
use super::random::Random;

/// Bytes of a turn that are damaged: where the handshake stands.
const REGION: usize = 600;

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Kind {
    /// A byte becomes another one.
    Byte,
    /// Two bytes become a number that is telling as a length.
    Length,
    Insert,
    Delete,
    /// The conversation ends in the middle.
    Cut,
    /// Records of other sizes around the same messages (RFC 8446 §5.1).
    Fragment,
    /// An alert, a ChangeCipherSpec or an empty record between two records.
    Record,
    /// Extensions of the ClientHello in another order.
    Shuffle,
    /// An extension of the ClientHello is left out, or comes twice.
    Extension,
    /// Another server name.
    Name,
    /// Segments of another size.
    Segment,
    /// Segments that overtake one another.
    Reorder,
    /// Segments that come again, and some bytes more or less.
    Repeat,
    /// A segment that is lost.
    Lose,
    /// Somebody resets the connection early.
    Reset,
}

const KINDS: [Kind; 15] = [
    Kind::Byte,
    Kind::Length,
    Kind::Insert,
    Kind::Delete,
    Kind::Cut,
    Kind::Fragment,
    Kind::Record,
    Kind::Shuffle,
    Kind::Extension,
    Kind::Name,
    Kind::Segment,
    Kind::Reorder,
    Kind::Repeat,
    Kind::Lose,
    Kind::Reset,
];

/// One change; its seed decides where and how.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Mutation {
    pub(super) kind: Kind,
    seed: u64,
}

impl Mutation {
    pub(super) fn random(random: &mut Random) -> Self {
        Self { kind: random.choose(&KINDS), seed: random.next() }
    }
}

/// The conversation after these changes, in segments: what is said changes first, then how it is sent.
pub(super) fn mutate(conversation: &Conversation, mutations: &[Mutation]) -> Vec<Packet> {
    let mut conversation = conversation.clone();
    let mut size = 1400;
    for Mutation { kind, seed } in mutations {
        let mut random = Random::new(*seed);
        if *kind == Kind::Segment {
            size = 1 + random.below(random.clone().choose(&[8, 100, 1400, 20_000]));
        } else {
            say(&mut conversation, *kind, &mut random);
        }
    }
    let mut packets = packets(&conversation, size);
    for Mutation { kind, seed } in mutations {
        send(&mut packets, *kind, &mut Random::new(*seed));
    }
    packets
}

fn say(conversation: &mut Conversation, kind: Kind, random: &mut Random) {
    let turns = conversation.turns.len();
    // What comes first matters most.
    let place = random.below(turns).min(random.below(turns));
    let Some((_, bytes)) = conversation.turns.get_mut(place) else { return };
    let at = random.below(bytes.len().min(REGION));
    match kind {
        Kind::Byte => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.byte();
            }
        }
        Kind::Length => {
            if let Some([high, low]) = bytes.get_mut(at..at + 2) {
                let now = u16::from_be_bytes([*high, *low]);
                let new = random.choose(&[0, 1, 2, 255, 256, 16_384, 16_641, u16::MAX]);
                let new = random.choose(&[new, now.wrapping_add(1), now.wrapping_sub(1)]);
                [*high, *low] = new.to_be_bytes();
            }
        }
        Kind::Insert => {
            let more: Vec<u8> = (0..=random.below(4)).map(|_| random.byte()).collect();
            bytes.splice(at..at, more);
        }
        Kind::Delete => {
            bytes.drain(at..bytes.len().min(at + 1 + random.below(4)));
        }
        Kind::Cut => {
            bytes.truncate(random.below(bytes.len()));
            conversation.turns.truncate(place + 1);
            conversation.endings.clear();
        }
        Kind::Fragment => fragment(bytes, random),
        Kind::Record => {
            let boundaries: Vec<usize> = records(bytes).map(|record| record.0).collect();
            if !boundaries.is_empty() {
                let at = random.choose(&boundaries);
                let (level, description) =
                    (random.choose(&[1, 2, 2, 3]), random.choose(&[0, 40, 42, 46, 48, 70, 80, 112, 200]));
                let alerts = [3, 1].map(|minor| [21, 3, minor, 0, 2, level, description]);
                let [alert, older] = &alerts;
                let record: &[u8] = random.choose(&[
                    &alert[..],
                    older,
                    &[20, 3, 3, 0, 1, 1],
                    &[22, 3, 3, 0, 0],
                    &[23, 3, 3, 0, 0],
                ]);
                bytes.splice(at..at, record.iter().copied());
            }
        }
        Kind::Shuffle | Kind::Extension | Kind::Name => {
            let hello = conversation.turns.first_mut().map(|(_, bytes)| bytes);
            if let Some(bytes) = hello {
                change_hello(bytes, kind, random);
            }
        }
        Kind::Segment | Kind::Reorder | Kind::Repeat | Kind::Lose | Kind::Reset => {}
    }
}

fn send(packets: &mut Vec<Packet>, kind: Kind, random: &mut Random) {
    // After the handshake of TCP.
    let at = 3 + random.below(packets.len().saturating_sub(3).min(12));
    let Some(packet) = packets.get(at).cloned() else { return };
    match kind {
        Kind::Reorder => {
            let to = (at + 1 + random.below(3)).min(packets.len() - 1);
            if packets.get(at..=to).is_some_and(|run| run.iter().all(|other| other.role == packet.role)) {
                packets.swap(at, to);
            }
        }
        Kind::Repeat => {
            let mut again = packet;
            let cut = random.below(again.payload.len());
            if random.below(2) == 0 {
                again.payload.truncate(cut);
            } else {
                again.payload.drain(..cut);
                again.sequence = again.sequence.wrapping_add(u32::try_from(cut).unwrap_or_default());
            }
            if !again.payload.is_empty() {
                packets.insert((at + 1 + random.below(4)).min(packets.len()), again);
            }
        }
        Kind::Lose if !packet.payload.is_empty() => {
            packets.remove(at);
        }
        Kind::Reset => {
            packets.truncate(at + 1);
            let mut reset = packet;
            let length = u32::try_from(reset.payload.len()).unwrap_or_default();
            reset.sequence = reset.sequence.wrapping_add(length);
            reset.payload.clear();
            reset.flags = TcpFlags::RST | TcpFlags::ACK;
            packets.push(reset);
        }
        _ => {}
    }
}

/// Where each whole record begins, and its content.
pub(super) fn records(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (&[_, major, _, high, low], rest) = bytes.get(at..)?.split_first_chunk()?;
        if major != 3 {
            return None;
        }
        let content = rest.get(..usize::from(u16::from_be_bytes([high, low])))?;
        let begin = at;
        at += 5 + content.len();
        Some((begin, content))
    })
}

/// The plaintext handshake messages that a turn begins with, in records of other sizes.
fn fragment(bytes: &mut Vec<u8>, random: &mut Random) {
    let (mut content, mut end) = (Vec::new(), 0);
    for (at, part) in records(bytes) {
        if bytes.get(at) != Some(&22) || part.is_empty() {
            break;
        }
        content.extend_from_slice(part);
        end = at + 5 + part.len();
    }
    let version = bytes.get(2).copied().unwrap_or(1);
    let most = random.choose(&[4, 40, 400, 4000]);
    let mut rest = content.as_slice();
    let mut new = Vec::new();
    while !rest.is_empty() {
        let (part, tail) = rest.split_at(rest.len().min(1 + random.below(most)));
        new.extend([22, 3, version]);
        new.extend(u16::try_from(part.len()).unwrap_or_default().to_be_bytes());
        new.extend_from_slice(part);
        rest = tail;
    }
    bytes.splice(..end, new);
}

/// Takes the extensions of a ClientHello that stands whole in the first record, and puts others there.
fn change_hello(bytes: &mut Vec<u8>, kind: Kind, random: &mut Random) {
    let Some(record) = records(bytes).next().map(|(_, content)| content.to_vec()) else { return };
    let Some((start, mut extensions)) = extensions(&record) else { return };
    let place = random.below(extensions.len());
    match kind {
        Kind::Shuffle => {
            for last in (1..extensions.len()).rev() {
                extensions.swap(last, random.below(last + 1));
            }
        }
        Kind::Extension if extensions.is_empty() => {}
        Kind::Extension if random.below(2) == 0 => {
            extensions.remove(place);
        }
        Kind::Extension => {
            let again = extensions[place].clone();
            extensions.insert(random.below(extensions.len() + 1), again);
        }
        _ => {
            let name = random.choose(&[
                &b"api.example.com"[..],
                b"API.Example.COM.",
                b"",
                b"192.0.2.7",
                b"2001:db8::1",
                b"_dmarc.example.com",
                b"xn--bcher-kva.example",
                b"a b",
                b"a\0b.example",
                b"\xc3\xbc.example",
                b"\xff\xfe",
                b"a\nb\tc",
                b"a\\b\"c,d;e",
            ]);
            extensions.retain(|(kind, _)| *kind != 0);
            let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap_or_default().to_be_bytes();
            let entry = [&[0][..], &length(name), name].concat();
            extensions.insert(place.min(extensions.len()), (0, [&length(&entry)[..], &entry].concat()));
        }
    }
    let mut list = Vec::new();
    for (kind, content) in &extensions {
        list.extend(kind.to_be_bytes());
        list.extend(u16::try_from(content.len()).unwrap_or_default().to_be_bytes());
        list.extend(content);
    }
    let body = [
        record.get(4..start).unwrap_or_default(),
        &u16::try_from(list.len()).unwrap_or_default().to_be_bytes(),
        &list,
    ]
    .concat();
    let [_, length @ ..] = u32::try_from(body.len()).unwrap_or_default().to_be_bytes();
    let message = [&[1][..], &length, &body].concat();
    let header = bytes.get(..3).unwrap_or_default();
    let new = [header, &u16::try_from(message.len()).unwrap_or_default().to_be_bytes(), &message].concat();
    bytes.splice(..5 + record.len(), new);
}

/// Type and content.
type Extension = (u16, Vec<u8>);

/// Where the list of extensions begins in a record with one ClientHello, and what is in it.
fn extensions(record: &[u8]) -> Option<(usize, Vec<Extension>)> {
    let length = |at: usize| Some(usize::from(u16::from_be_bytes(*record.get(at..)?.first_chunk()?)));
    if !record.starts_with(&[1]) {
        return None;
    }
    // Type and length, version, random.
    let mut at = 4 + 2 + 32;
    at += 1 + usize::from(*record.get(at)?);
    at += 2 + length(at)?;
    at += 1 + usize::from(*record.get(at)?);
    let start = at;
    let end = at + 2 + length(at)?;
    at += 2;
    let mut extensions = Vec::new();
    while at < end {
        let kind = u16::try_from(length(at)?).ok()?;
        let len = length(at + 2)?;
        extensions.push((kind, record.get(at + 4..at + 4 + len)?.to_vec()));
        at += 4 + len;
    }
    (end == record.len()).then_some((start, extensions))
}

#[cfg(test)]
mod tests {
    use tlstrace::engine::facts::Role;

    use super::*;

    fn hello() -> Vec<u8> {
        let body =
            [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0], &[0, 9], &[0, 23, 0, 0], &[0, 35, 0, 1, 5]]
                .concat();
        let message = [&[1, 0, 0, u8::try_from(body.len()).unwrap()][..], &body].concat();
        [&[22, 3, 1, 0, u8::try_from(message.len()).unwrap()][..], &message].concat()
    }

    #[test]
    fn a_shuffled_hello_has_the_same_extensions_in_a_hello_of_the_same_length() {
        let mut bytes = hello();
        change_hello(&mut bytes, Kind::Shuffle, &mut Random::new(2));
        assert_eq!(bytes.len(), hello().len());
        let mut found = extensions(&bytes[5..]).unwrap().1;
        found.sort();
        assert_eq!(found, [(23, vec![]), (35, vec![5])]);
    }

    #[test]
    fn other_records_hold_the_same_messages() {
        let mut bytes = [hello(), hello()].concat();
        fragment(&mut bytes, &mut Random::new(1));
        let content: Vec<u8> = records(&bytes).flat_map(|(_, content)| content.to_vec()).collect();
        assert_eq!(content, [&hello()[5..], &hello()[5..]].concat());
        assert_ne!(bytes, [hello(), hello()].concat());
    }

    #[test]
    fn the_same_seed_does_the_same() {
        let conversation = Conversation { turns: vec![(Role::Client, hello())], endings: Vec::new() };
        for seed in 0..200 {
            let mutations: Vec<_> = {
                let mut random = Random::new(seed);
                (0..3).map(|_| Mutation::random(&mut random)).collect()
            };
            let [one, other] = [(), ()].map(|()| mutate(&conversation, &mutations));
            assert_eq!(format!("{one:?}"), format!("{other:?}"));
        }
    }
}
