//! Files made by hand, byte for byte.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::fields::ByteOrder;
use super::*;

/// An owned [`Frame`].
#[derive(Debug, Eq, PartialEq)]
struct OwnedFrame {
    nanos: u64,
    link_type: u32,
    interface: u32,
    wire_len: u32,
    data: Vec<u8>,
}

fn open(bytes: &[u8]) -> Result<CaptureReader, ReadError> {
    CaptureReader::from_reader("test".to_owned(), Box::new(Cursor::new(bytes.to_vec())))
}

/// All frames up to the end or the first error, and where the file was cut.
fn read(bytes: &[u8]) -> (Vec<OwnedFrame>, Option<u64>, Option<ReadError>) {
    let mut reader = match open(bytes) {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), None, Some(error)),
    };
    let mut frames = Vec::new();
    loop {
        match reader.next_frame() {
            Ok(Some(frame)) => frames.push(OwnedFrame {
                nanos: frame.timestamp.as_nanos(),
                link_type: frame.link_type,
                interface: frame.interface,
                wire_len: frame.wire_len,
                data: frame.data.to_vec(),
            }),
            Ok(None) => return (frames, reader.truncated_at(), None),
            Err(error) => {
                assert_eq!(reader.next_frame().unwrap(), None, "an error ends the file");
                return (frames, reader.truncated_at(), Some(error));
            }
        }
    }
}

fn read_whole(bytes: &[u8]) -> Vec<OwnedFrame> {
    let (frames, truncated_at, error) = read(bytes);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(truncated_at, None);
    frames
}

/// Writes integers in one byte order.
#[derive(Clone, Copy)]
struct Writer(ByteOrder);

const ORDERS: [Writer; 2] = [Writer(ByteOrder::Little), Writer(ByteOrder::Big)];

impl Writer {
    fn u16(self, value: u16) -> Vec<u8> {
        match self.0 {
            ByteOrder::Little => value.to_le_bytes().to_vec(),
            ByteOrder::Big => value.to_be_bytes().to_vec(),
        }
    }

    fn u32(self, value: u32) -> Vec<u8> {
        match self.0 {
            ByteOrder::Little => value.to_le_bytes().to_vec(),
            ByteOrder::Big => value.to_be_bytes().to_vec(),
        }
    }

    fn u32s(self, values: &[u32]) -> Vec<u8> {
        values.iter().flat_map(|&value| self.u32(value)).collect()
    }

    fn i64(self, value: i64) -> Vec<u8> {
        match self.0 {
            ByteOrder::Little => value.to_le_bytes().to_vec(),
            ByteOrder::Big => value.to_be_bytes().to_vec(),
        }
    }

    fn pcap_header(self, magic: u32, link_type: u32) -> Vec<u8> {
        let version = [self.u16(2), self.u16(4)].concat();
        [self.u32(magic), version, self.u32s(&[0, 0, 65_535, link_type])].concat()
    }

    fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        let len = u32::try_from(body.len() + 12).unwrap();
        [self.u32(kind), self.u32(len), body, self.u32(len)].concat()
    }

    fn section(self) -> Vec<u8> {
        let body = [self.u32(0x1a2b_3c4d), self.u16(1), self.u16(0), self.i64(-1)].concat();
        self.block(0x0a0d_0d0a, &body)
    }

    fn interface(self, link_type: u16, snap_len: u32, options: &[u8]) -> Vec<u8> {
        let body = [self.u16(link_type), self.u16(0), self.u32(snap_len), options.to_vec()].concat();
        self.block(1, &body)
    }

    fn option(self, code: u16, value: &[u8]) -> Vec<u8> {
        let mut padded = value.to_vec();
        padded.resize(value.len().next_multiple_of(4), 0);
        [self.u16(code), self.u16(u16::try_from(value.len()).unwrap()), padded].concat()
    }

    fn enhanced(self, interface: u32, ticks: u64, wire_len: u32, data: &[u8]) -> Vec<u8> {
        let high = u32::try_from(ticks >> 32).unwrap();
        let low = u32::try_from(ticks & 0xffff_ffff).unwrap();
        let captured = u32::try_from(data.len()).unwrap();
        let head = self.u32s(&[interface, high, low, captured, wire_len]);
        let mut body = [head, data.to_vec()].concat();
        body.resize(body.len().next_multiple_of(4), 0);
        body.extend(self.option(2, &[1, 0, 0, 0]));
        self.block(6, &body)
    }
}

fn two_frames(writer: Writer, magic: u32, extra: &[u8]) -> Vec<u8> {
    [
        writer.pcap_header(magic, 1),
        writer.u32s(&[1_600_000_000, 123_456, 3, 3]),
        extra.to_vec(),
        b"abc".to_vec(),
        writer.u32s(&[1_600_000_001, 0, 2, 1500]),
        extra.to_vec(),
        b"de".to_vec(),
    ]
    .concat()
}

fn small_pcapng(writer: Writer) -> Vec<u8> {
    [
        writer.section(),
        writer.interface(1, 0, &[]),
        writer.enhanced(0, 1_600_000_000_123_456, 3, b"abc"),
        writer.block(0x0bad, b"unknown"),
        writer.enhanced(0, 1_600_000_001_000_000, 1500, b"de"),
    ]
    .concat()
}

fn expected_two_frames() -> Vec<OwnedFrame> {
    vec![
        OwnedFrame {
            nanos: 1_600_000_000_123_456_000,
            link_type: 1,
            interface: 0,
            wire_len: 3,
            data: b"abc".to_vec(),
        },
        OwnedFrame {
            nanos: 1_600_000_001_000_000_000,
            link_type: 1,
            interface: 0,
            wire_len: 1500,
            data: b"de".to_vec(),
        },
    ]
}

#[test]
fn pcap_is_read_in_both_byte_orders() {
    for writer in ORDERS {
        assert_eq!(read_whole(&two_frames(writer, 0xa1b2_c3d4, &[])), expected_two_frames());
    }
}

#[test]
fn modified_pcap_has_longer_frame_headers() {
    for writer in ORDERS {
        assert_eq!(read_whole(&two_frames(writer, 0xa1b2_cd34, &[7; 8])), expected_two_frames());
    }
}

#[test]
fn nanosecond_pcap_keeps_its_nanoseconds() {
    for writer in ORDERS {
        let frames = read_whole(&two_frames(writer, 0xa1b2_3c4d, &[]));
        assert_eq!(frames[0].nanos, 1_600_000_000_000_123_456);
    }
}

#[test]
fn link_type_leaves_out_the_check_sequence_bits() {
    let [writer, _] = ORDERS;
    let file =
        [writer.pcap_header(0xa1b2_c3d4, 0x4400_0001), writer.u32s(&[0, 0, 1, 1]), b"a".to_vec()].concat();
    assert_eq!(read_whole(&file)[0].link_type, 1);
}

#[test]
fn pcapng_is_read_in_both_byte_orders() {
    for writer in ORDERS {
        assert_eq!(read_whole(&small_pcapng(writer)), expected_two_frames());
    }
}

#[test]
fn gzip_is_recognised_by_content() {
    let [writer, _] = ORDERS;
    for file in [two_frames(writer, 0xa1b2_c3d4, &[]), small_pcapng(writer)] {
        assert_eq!(read_whole(&gzip(&file)), expected_two_frames());
    }
}

#[test]
fn gzip_stream_cut_off_is_read_up_to_the_cut() {
    let [writer, _] = ORDERS;
    let compressed = gzip(&two_frames(writer, 0xa1b2_c3d4, &[]));
    let (frames, truncated_at, error) = read(&compressed[..compressed.len() - 4]);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(frames, expected_two_frames());
    assert!(truncated_at.is_some());
}

#[test]
fn sections_have_interfaces_and_byte_orders_of_their_own() {
    let [little, big] = ORDERS;
    let file = [
        little.section(),
        little.interface(1, 0, &[]),
        little.interface(101, 0, &[]),
        little.enhanced(1, 5, 1, b"a"),
        big.section(),
        big.interface(113, 0, &[]),
        big.enhanced(0, 6, 1, b"b"),
        big.enhanced(1, 6, 1, b"c"),
    ]
    .concat();
    let (frames, _, error) = read(&file);
    let seen: Vec<_> = frames.iter().map(|frame| (frame.link_type, frame.interface, frame.nanos)).collect();
    assert_eq!(seen, [(101, 1, 5000), (113, 2, 6000)]);
    assert!(
        matches!(error, Some(ReadError::Damaged { problem: Problem::UnknownInterface(1), .. })),
        "{error:?}"
    );
}

#[test]
fn timestamp_options_of_an_interface_are_applied() {
    for writer in ORDERS {
        let nanoseconds = writer.option(9, &[9]);
        let binary = writer.option(9, &[0x8a]);
        let picoseconds = writer.option(9, &[12]);
        let offset = [
            writer.option(2, b"eth0"),
            writer.option(9, &[0]),
            writer.option(14, &writer.i64(-100)),
            writer.option(0, &[]),
        ]
        .concat();
        let cases = [
            (nanoseconds, 42, 42),
            (binary, 1536, 1_500_000_000),
            (picoseconds, 42_999, 42),
            (offset, 103, 3_000_000_000),
        ];
        for (options, ticks, nanos) in cases {
            let file =
                [writer.section(), writer.interface(1, 0, &options), writer.enhanced(0, ticks, 1, b"a")]
                    .concat();
            assert_eq!(read_whole(&file)[0].nanos, nanos);
        }
    }
}

#[test]
fn no_timestamp_resolution_overflows() {
    let [writer, _] = ORDERS;
    for resolution in 0..=u8::MAX {
        let options = writer.option(9, &[resolution]);
        let file =
            [writer.section(), writer.interface(1, 0, &options), writer.enhanced(0, u64::MAX, 1, b"a")]
                .concat();
        assert_eq!(read_whole(&file).len(), 1);
    }
}

#[test]
fn simple_packets_take_length_from_the_interface_and_time_from_the_frame_before() {
    for writer in ORDERS {
        let file = [
            writer.section(),
            writer.interface(1, 2, &[]),
            writer.enhanced(0, 7, 1, b"a"),
            writer.block(3, &[writer.u32(5), b"bc\0\0".to_vec()].concat()),
        ]
        .concat();
        let frames = read_whole(&file);
        assert_eq!(
            frames[1],
            OwnedFrame { nanos: 7000, link_type: 1, interface: 0, wire_len: 5, data: b"bc".to_vec() }
        );
    }
}

#[test]
fn obsolete_packet_blocks_are_read() {
    for writer in ORDERS {
        let packet = [writer.u16(0), writer.u16(9), writer.u32s(&[0, 8, 3, 3]), b"abc\0".to_vec()].concat();
        let file = [writer.section(), writer.interface(1, 0, &[]), writer.block(2, &packet)].concat();
        assert_eq!(
            read_whole(&file),
            [OwnedFrame { nanos: 8000, link_type: 1, interface: 0, wire_len: 3, data: b"abc".to_vec() }]
        );
    }
}

#[test]
fn every_prefix_gives_the_frames_before_the_cut_and_says_so() {
    let [writer, _] = ORDERS;
    for file in [two_frames(writer, 0xa1b2_c3d4, &[]), small_pcapng(writer)] {
        for len in 0..file.len() {
            let prefix = &file[..len];
            let (frames, truncated_at, error) = read(prefix);
            assert!(expected_two_frames().starts_with(&frames));
            match error {
                Some(ReadError::NotACapture { .. }) => assert!(len < 24, "{len}"),
                Some(error) => panic!("{error}"),
                None => assert!(truncated_at.is_none_or(|at| at == len as u64)),
            }
        }
    }
}

#[test]
fn every_corrupt_byte_is_survived() {
    let [writer, _] = ORDERS;
    for file in [two_frames(writer, 0xa1b2_c3d4, &[]), small_pcapng(writer)] {
        for index in 0..file.len() {
            for value in [0, 0x7f, 0x80, 0xff] {
                let mut file = file.clone();
                file[index] = value;
                let (frames, ..) = read(&file);
                assert!(frames.len() <= 2);
            }
        }
    }
}

#[test]
fn lengths_that_cannot_be_are_damage() {
    let [writer, _] = ORDERS;
    let frame = [writer.pcap_header(0xa1b2_c3d4, 1), writer.u32s(&[0, 0, u32::MAX, 1])].concat();
    let block = [writer.section(), writer.u32s(&[6, 0xffff_fff0])].concat();
    let odd_block = [writer.section(), writer.u32s(&[6, 33])].concat();
    let trailer = [writer.section(), writer.u32s(&[1, 20, 1, 0, 24])].concat();
    for (file, expected) in [
        (frame, Problem::FrameTooLong(u32::MAX)),
        (block, Problem::BlockLength(0xffff_fff0)),
        (odd_block, Problem::BlockLength(33)),
        (trailer, Problem::BlockLengthsDiffer { leading: 20, trailing: 24 }),
    ] {
        match read(&file) {
            (_, _, Some(ReadError::Damaged { problem, offset, .. })) => {
                assert_eq!(problem, expected);
                assert!(offset == 24 || offset == 28, "{offset}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn other_files_are_refused_by_name() {
    for (bytes, reason) in [
        (&b""[..], "it is empty"),
        (b"\x89PNG", "it begins with 89 50 4e 47, which is neither pcap nor pcapng"),
        (b"ab", "it ends before its header does"),
    ] {
        let Err(error) = open(bytes) else { panic!("{bytes:?} was read") };
        assert_eq!(error.to_string(), format!("test is not a capture file: {reason}"));
    }
}

#[test]
fn frames_larger_than_the_buffer_are_read_whole() {
    let [writer, _] = ORDERS;
    let large: Vec<u8> = (0..1_000_000u32).map(|i| i.to_le_bytes()[0]).collect();
    let len = u32::try_from(large.len()).unwrap();
    let mut file = writer.pcap_header(0xa1b2_c3d4, 1);
    for _ in 0..3 {
        file.extend(writer.u32s(&[0, 0, len, len]));
        file.extend(&large);
    }
    let frames = read_whole(&file);
    assert_eq!(frames.len(), 3);
    assert!(frames.iter().all(|frame| frame.data == large));
}

#[test]
fn small_reads_make_no_difference() {
    struct OneByte(Cursor<Vec<u8>>);
    impl Read for OneByte {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = buffer.len().min(1);
            self.0.read(&mut buffer[..len])
        }
    }
    let [writer, _] = ORDERS;
    let source = OneByte(Cursor::new(two_frames(writer, 0xa1b2_c3d4, &[])));
    let mut reader = CaptureReader::from_reader("test".to_owned(), Box::new(source)).unwrap();
    let mut count = 0;
    while reader.next_frame().unwrap().is_some() {
        count += 1;
    }
    assert_eq!((count, reader.truncated_at()), (2, None));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
