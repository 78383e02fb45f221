//! Small tc programs of somebody else, made of a few instructions.

use anyhow::Result;
use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

/// An object file with one classifier of that name (at most 15 bytes), made of BPF instructions.
pub fn classifier(name: &str, instructions: &[u8]) -> Result<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let license = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    object.append_section_data(license, b"Dual MIT/GPL\0", 1);
    let section = object.add_section(Vec::new(), b"classifier".to_vec(), SectionKind::Text);
    object.append_section_data(section, instructions, 8);
    object.add_symbol(Symbol {
        name: name.into(),
        value: 0,
        size: instructions.len().try_into()?,
        kind: SymbolKind::Text,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
    Ok(object.write()?)
}

/// `r0 = verdict; exit`: what a program consists of that decides the same for every packet (a `TC_ACT_` number of
/// `linux/pkt_cls.h`).
pub fn always(verdict: i32) -> [u8; 16] {
    let [v0, v1, v2, v3] = verdict.to_le_bytes();
    [0xb7, 0, 0, 0, v0, v1, v2, v3, 0x95, 0, 0, 0, 0, 0, 0, 0]
}

/// `TC_ACT_OK`: the packet may pass, and no program behind this one is asked.
pub const END_OF_CHAIN: i32 = 0;

/// `TC_ACT_UNSPEC`: the next program decides.
pub const NEXT_PROGRAM: i32 = -1;
