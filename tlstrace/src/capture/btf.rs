//! The kernel's description of its own types (BTF, `Documentation/bpf/btf.rst`): where members of structures stand, and
//! what enumerators are called. What aya reads of it is not public.

use std::path::Path;
use std::{fs, io};

/// Where the kernel shows its BTF. It belongs to sysfs itself, so that wherever `/sys` is, it is too.
const OF_KERNEL: &str = "/sys/kernel/btf/vmlinux";

/// Type information, with an index of its types.
pub(super) struct Btf {
    bytes: Vec<u8>,
    strings_at: usize,
    /// Where each type begins, by its id; id 0 is `void`.
    types: Vec<usize>,
}

/// The head of every type's description (`struct btf_type`).
#[derive(Clone, Copy)]
struct Head {
    name: u32,
    kind: u32,
    /// Number of members, enumerators or parameters, which follow.
    count: usize,
    /// Members that are bit fields share their offset with a size.
    has_bit_fields: bool,
    /// Another type, for those that refer to one.
    refers_to: u32,
}

/// `BTF_KIND_` numbers of `linux/btf.h`.
mod kind {
    pub(super) const PTR: u32 = 2;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const FUNC_PROTO: u32 = 13;
}

/// `BTF_MAGIC`
const MAGIC: u16 = 0xeb9f;
const HEAD_LEN: usize = 12;
/// Anonymous structures and unions inside each other; the kernel has fewer than ten.
const MAX_NESTING: u32 = 16;

impl Btf {
    /// That of the running kernel.
    pub(super) fn of_kernel() -> io::Result<Self> {
        let bytes = fs::read(Path::new(OF_KERNEL))?;
        Self::parse(bytes).ok_or_else(|| io::Error::other(format!("{OF_KERNEL} is not what it should be")))
    }

    fn parse(bytes: Vec<u8>) -> Option<Self> {
        if u16::from_ne_bytes(*bytes.first_chunk()?) != MAGIC {
            return None;
        }
        let word = |at| word(&bytes, at).map(|word| word as usize);
        let (header_len, types_at, types_len, strings_at) = (word(4)?, word(8)?, word(12)?, word(16)?);
        let end = header_len.checked_add(types_at)?.checked_add(types_len)?;
        let mut at = header_len.checked_add(types_at)?;
        let mut types = vec![0];
        while at < end {
            types.push(at);
            at = at.checked_add(HEAD_LEN)?.checked_add(Head::read(&bytes, at)?.body_len()?)?;
        }
        let strings_at = header_len.checked_add(strings_at)?;
        Some(Self { bytes, strings_at, types })
    }

    /// Offset of a structure's member in bytes, be it inside anonymous structures or unions of it.
    pub(super) fn offset_of(&self, structure: &str, member: &str) -> Option<u32> {
        let id = self.find(kind::STRUCT, structure)?;
        Some(self.bit_offset_of(id, member, MAX_NESTING)? / 8)
    }

    /// The enumerators of an `enum`, with their values.
    pub(super) fn enumerators(&self, name: &str) -> Option<Vec<(u32, &str)>> {
        let id = self.find(kind::ENUM, name)?;
        let (at, head) = self.head(id)?;
        let enumerator = |index: usize| {
            let at = at + HEAD_LEN + 8 * index;
            Some((word(&self.bytes, at + 4)?, self.string(word(&self.bytes, at)?)?))
        };
        (0..head.count).map(enumerator).collect()
    }

    /// How many arguments a tracepoint has. None if there is no such tracepoint.
    pub(super) fn tracepoint_arguments(&self, tracepoint: &str) -> Option<usize> {
        let id = self.find(kind::TYPEDEF, &format!("btf_trace_{tracepoint}"))?;
        let pointer = self.head(self.head(id)?.1.refers_to)?.1;
        let function = self.head(pointer.refers_to)?.1;
        // The first parameter is the tracepoint's own.
        (pointer.kind == kind::PTR && function.kind == kind::FUNC_PROTO)
            .then(|| function.count.checked_sub(1))
            .flatten()
    }

    fn bit_offset_of(&self, id: u32, member: &str, nesting: u32) -> Option<u32> {
        let (at, head) = self.head(id)?;
        (0..head.count).find_map(|index| {
            let at = at + HEAD_LEN + 12 * index;
            let (name, of, mut offset) =
                (word(&self.bytes, at)?, word(&self.bytes, at + 4)?, word(&self.bytes, at + 8)?);
            if head.has_bit_fields {
                offset &= 0x00ff_ffff;
            }
            if name != 0 {
                return (self.string(name)? == member).then_some(offset);
            }
            let inside = self.head(of)?.1.kind;
            if !matches!(inside, kind::STRUCT | kind::UNION) || nesting == 0 {
                return None;
            }
            self.bit_offset_of(of, member, nesting - 1)?.checked_add(offset)
        })
    }

    fn find(&self, kind: u32, name: &str) -> Option<u32> {
        let ids = 1..u32::try_from(self.types.len()).ok()?;
        ids.into_iter().find(|id| {
            self.head(*id).is_some_and(|(_, head)| head.kind == kind && self.string(head.name) == Some(name))
        })
    }

    fn head(&self, id: u32) -> Option<(usize, Head)> {
        let at = *self.types.get(usize::try_from(id).ok()?).filter(|at| **at != 0)?;
        Some((at, Head::read(&self.bytes, at)?))
    }

    fn string(&self, offset: u32) -> Option<&str> {
        let bytes = self.bytes.get(self.strings_at.checked_add(offset as usize)?..)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(bytes.get(..end)?).ok()
    }
}

impl Head {
    fn read(bytes: &[u8], at: usize) -> Option<Self> {
        let info = word(bytes, at + 4)?;
        Some(Self {
            name: word(bytes, at)?,
            kind: info >> 24 & 0x1f,
            count: (info & 0xffff) as usize,
            has_bit_fields: info >> 31 != 0,
            refers_to: word(bytes, at + 8)?,
        })
    }

    /// Bytes that follow the head.
    fn body_len(self) -> Option<usize> {
        Some(match self.kind {
            // Integers, variables, tags of declarations.
            1 | 14 | 17 => 4,
            // Arrays.
            3 => 12,
            // Structures, unions, sections, 64-bit enumerations.
            kind::STRUCT | kind::UNION | 15 | 19 => 12 * self.count,
            kind::ENUM | kind::FUNC_PROTO => 8 * self.count,
            // Pointers, forward declarations, typedefs, qualifiers, functions, floats, tags of types.
            kind::PTR | 7 | kind::TYPEDEF | 9..=12 | 16 | 18 => 0,
            _ => return None,
        })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct outer { int; union { struct { char first, second; }; }; }`, `enum fruit { APPLE = 3 }`, and
    /// `typedef void (*btf_trace_ripen)(void *, int)`.
    fn small() -> Vec<u8> {
        let strings = b"\0outer\0kept\0second\0fruit\0APPLE\0btf_trace_ripen\0";
        let at = |name: &str| {
            let name = [name.as_bytes(), &[0]].concat();
            u32::try_from(strings.windows(name.len()).position(|window| window == name).unwrap()).unwrap()
        };
        let info = |kind: u32, count: u32| kind << 24 | count;
        let types: Vec<u32> = [
            // 1: an integer.
            vec![0, info(1, 0), 4, 0x20],
            // 2: the innermost structure.
            vec![0, info(kind::STRUCT, 2), 2, at("kept"), 1, 0, at("second"), 1, 8],
            // 3: the union.
            vec![0, info(kind::UNION, 1), 2, 0, 2, 0],
            // 4: the outer structure.
            vec![at("outer"), info(kind::STRUCT, 2), 8, 0, 1, 0, 0, 3, 32],
            // 5: the enumeration.
            vec![at("fruit"), info(kind::ENUM, 1), 4, at("APPLE"), 3],
            // 6, 7, 8: the tracepoint.
            vec![0, info(kind::FUNC_PROTO, 2), 0, 0, 0, 0, 1],
            vec![0, info(kind::PTR, 0), 6],
            vec![at("btf_trace_ripen"), info(kind::TYPEDEF, 0), 7],
        ]
        .concat();
        let types_len = u32::try_from(4 * types.len()).unwrap();
        let strings_len = u32::try_from(strings.len()).unwrap();
        let mut bytes = [MAGIC.to_ne_bytes(), [1, 0]].concat();
        for word in [24, 0, types_len, types_len, strings_len].into_iter().chain(types) {
            bytes.extend(u32::to_ne_bytes(word));
        }
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn members_are_found_inside_anonymous_structures_and_unions() {
        let btf = Btf::parse(small()).unwrap();
        assert_eq!(btf.offset_of("outer", "second"), Some(5));
        assert_eq!(btf.offset_of("outer", "third"), None);
        assert_eq!(btf.offset_of("inner", "second"), None);
    }

    #[test]
    fn enumerators_and_tracepoints_are_found_by_name() {
        let btf = Btf::parse(small()).unwrap();
        assert_eq!(btf.enumerators("fruit"), Some(vec![(3, "APPLE")]));
        assert_eq!(btf.tracepoint_arguments("ripen"), Some(1));
        assert_eq!(btf.tracepoint_arguments("rot"), None);
    }

    #[test]
    fn cut_and_damaged_information_is_refused_or_read_without_harm() {
        let whole = small();
        for len in 0..whole.len() {
            if let Some(btf) = Btf::parse(whole[..len].to_vec()) {
                let _ = (btf.offset_of("outer", "second"), btf.enumerators("fruit"));
            }
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            if let Some(btf) = Btf::parse(bytes) {
                let _ = (btf.offset_of("outer", "second"), btf.tracepoint_arguments("ripen"));
            }
        }
    }
}
