use std::io::Write;
use std::sync::Arc;

use ::parquet::basic::{BrotliLevel, GzipLevel, ZstdLevel};
use ::parquet::column::writer::ColumnWriter;
use ::parquet::data_type::{ByteArray, FixedLenByteArray};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;

use super::super::bounds::Halt;
use super::super::footer::tests::{file_of, metadata};
use super::*;

/// The cells of one column; all are there.
enum Values {
    Int(Vec<i32>),
    Long(Vec<i64>),
    Double(Vec<f64>),
    Bytes(Vec<Vec<u8>>),
    Fixed(Vec<Vec<u8>>),
    /// A text in some rows only.
    Maybe(Vec<Option<&'static str>>),
}

fn texts(texts: &[&str]) -> Values {
    Values::Bytes(texts.iter().map(|text| text.as_bytes().to_vec()).collect())
}

fn written(schema: &str, codec: Compression, columns: &[Values]) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder().set_compression(codec).build();
    let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    let mut group = file.next_row_group().unwrap();
    for values in columns {
        let mut column = group.next_column().unwrap().unwrap();
        match (column.untyped(), values) {
            (ColumnWriter::Int32ColumnWriter(writer), Values::Int(values)) => {
                writer.write_batch(values, None, None).unwrap();
            }
            (ColumnWriter::Int64ColumnWriter(writer), Values::Long(values)) => {
                writer.write_batch(values, None, None).unwrap();
            }
            (ColumnWriter::DoubleColumnWriter(writer), Values::Double(values)) => {
                writer.write_batch(values, None, None).unwrap();
            }
            (ColumnWriter::ByteArrayColumnWriter(writer), Values::Bytes(values)) => {
                let values: Vec<ByteArray> = values.iter().cloned().map(ByteArray::from).collect();
                writer.write_batch(&values, None, None).unwrap();
            }
            (ColumnWriter::ByteArrayColumnWriter(writer), Values::Maybe(values)) => {
                let levels: Vec<i16> = values
                    .iter()
                    .map(|text| i16::from(text.is_some()))
                    .collect();
                let values: Vec<ByteArray> =
                    values.iter().flatten().map(|text| (*text).into()).collect();
                writer.write_batch(&values, Some(&levels), None).unwrap();
            }
            (ColumnWriter::FixedLenByteArrayColumnWriter(writer), Values::Fixed(values)) => {
                let values: Vec<FixedLenByteArray> = values
                    .iter()
                    .map(|value| ByteArray::from(value.clone()).into())
                    .collect();
                writer.write_batch(&values, None, None).unwrap();
            }
            _ => panic!("the schema says something else"),
        }
        column.close().unwrap();
    }
    group.close().unwrap();
    file.into_inner().unwrap()
}

fn decoded(bytes: &[u8]) -> Result<Vec<String>, BookError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let out = tempfile::tempfile().unwrap();
    let halt = Halt::default();
    let meter = Meter::new(&halt, std::time::Duration::from_secs(60));
    decode(&file, out.try_clone().unwrap(), &meter)?;
    let mut lines = Vec::new();
    flat::read(&out, &mut |line| {
        lines.push(match line.cells {
            Ok(cells) => format!(
                "{} {} {} {} {} {} {}",
                line.number,
                cells.ticker.text(),
                cells.client_id.text(),
                cells.loan_days.text(),
                cells.position_value.text(),
                cells.shares.text(),
                cells.share_price.text()
            ),
            Err(reason) => format!("{} {reason}", line.number),
        });
        true
    })?;
    Ok(lines)
}

const PLAIN: &str = "message book {
    required binary ticker (UTF8); required binary client (UTF8); required int32 days; required double value;
}";

fn plain(codec: Compression) -> Vec<u8> {
    let columns = [
        texts(&["GME", " AMC "]),
        texts(&["standard", "premium"]),
        Values::Int(vec![30, 7]),
        Values::Double(vec![100_000.0, 2500.5]),
    ];
    written(PLAIN, codec, &columns)
}

const EXPECTED: [&str; 2] = ["1 GME standard 30 100000  ", "2 AMC premium 7 2500.5  "];

#[test]
fn every_codec_that_is_written_today_is_read() {
    for codec in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
    ] {
        assert_eq!(decoded(&plain(codec)).unwrap(), EXPECTED, "{codec:?}");
    }
}

#[test]
fn only_our_columns_are_decoded() {
    let schema = "message book {
        required fixed_len_byte_array(12) since (INTERVAL); required int96 traded; required binary ticker;
        required group desk { required group head { required binary name (UTF8); } }
        required binary client_id (ENUM); required int64 loan_days; required binary note (BSON); required int32 value;
    }";
    let columns = [
        Values::Fixed(vec![vec![1; 12]; 2]),
        texts(&["GME", "GM\u{0}E"]),
        texts(&["x", "y"]),
        texts(&["standard", "standard"]),
        Values::Long(vec![30, 7]),
        Values::Bytes(vec![vec![0xff; 9]; 2]),
        Values::Int(vec![100, 5]),
    ];
    // INT96 cannot be written here without its own type: the column stands in the schema of the next one alone.
    let schema = schema.replace("required int96 traded;", "");
    let found = decoded(&written(&schema, Compression::SNAPPY, &columns)).unwrap();
    assert_eq!(
        found,
        ["1 GME standard 30 100  ", "2 GM\u{0}E standard 7 5  "]
    );
}

#[test]
fn a_typed_number_counts_by_its_value_and_text_by_its_letters() {
    let schema = "message book {
        required binary ticker; required fixed_len_byte_array(8) client_id; required binary days (UTF8);
        required int64 value (DECIMAL(18,4)); required fixed_len_byte_array(9) shares (DECIMAL(20,3)); required binary price (DECIMAL(10,2));
    }";
    let columns = [
        texts(&["GME", "AMC", "BB"]),
        Values::Fixed(vec![
            b"standard".to_vec(),
            b"premium\0".to_vec(),
            vec![0xff; 8],
        ]),
        texts(&["30.0", "1.000", "7"]),
        Values::Long(vec![25_005_000, -1, 10_000]),
        Values::Fixed(vec![
            [vec![0; 7], 34_464_u16.to_be_bytes().to_vec()].concat(),
            vec![0xff; 9],
            vec![0; 9],
        ]),
        Values::Bytes(vec![vec![0x04, 0xd2], vec![0x80], vec![]]),
    ];
    let found = decoded(&written(schema, Compression::UNCOMPRESSED, &columns)).unwrap();
    assert_eq!(
        found,
        [
            "1 GME standard 30.0 2500.5 34.464 12.34",
            "2 AMC premium 1.000 -0.0001 -0.001 -1.28",
            "3 client_id is not UTF-8"
        ]
    );
    for (unscaled, scale, expected) in [
        (0, 4, "0"),
        (1, 0, "1"),
        (-5, 1, "-0.5"),
        (100, 0, "100"),
        (i128::MIN, 38, "-1.70141183460469231731687303715884105728"),
    ] {
        assert_eq!(decimal(unscaled, scale).unwrap().text(), expected);
    }
    for (bytes, expected) in [
        (&[][..], Some(0)),
        (&[0xff], Some(-1)),
        (&[0; 21], Some(0)),
        (&[&[0; 19][..], &[1, 0]].concat(), Some(256)),
        (&[0xff; 32], Some(-1)),
        (&[&[1][..], &[0; 16]].concat(), None),
        (&[&[0][..], &[0xff; 16]].concat(), None),
    ] {
        assert_eq!(unscaled(bytes), expected, "{bytes:?}");
    }
    assert_eq!(decimal(1, 39), Err(NO_TEXT));
    assert_eq!(decimal(1, -1), Err(NO_TEXT));
}

#[test]
fn a_row_without_cells_is_no_row() {
    let schema = "message book { optional binary ticker (UTF8); optional binary client (UTF8); optional binary days (UTF8); optional binary value (UTF8); }";
    let row = |text: &'static str| Values::Maybe(vec![None, Some(text), None, Some(text)]);
    let columns = [
        row("GME"),
        row("standard"),
        row("30"),
        Values::Maybe(vec![None, Some("1"), Some(" "), None]),
    ];
    let found = decoded(&written(schema, Compression::UNCOMPRESSED, &columns)).unwrap();
    assert_eq!(found, ["2 GME standard 30 1  ", "4 GME standard 30   "]);
    let none = || Values::Maybe(vec![None; 4]);
    let empty = written(
        schema,
        Compression::UNCOMPRESSED,
        &[none(), none(), none(), none()],
    );
    assert_eq!(decoded(&empty), Err(BookError::Empty));
}

#[test]
fn what_cannot_be_decoded_is_named_with_its_column_and_codec() {
    let whole = plain(Compression::ZSTD(ZstdLevel::default()));
    let mut broken = 0;
    for at in 4..100 {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        if let Err(error) = decoded(&bytes) {
            let error = error.to_string();
            assert!(
                error.contains("column ticker (compressed by zstd)"),
                "{error}"
            );
            broken += 1;
        }
        if broken > 3 {
            break;
        }
    }
    assert!(broken > 3);
}

/// Nothing writes LZO here: a file names it as its codec.
#[test]
fn a_codec_that_is_not_read_is_named_with_a_way_on() {
    let mut bytes = plain(Compression::UNCOMPRESSED);
    // In the footer's Thrift: the name of the column, then the field of its codec, a number of which each bit is
    // doubled.
    let field = b"\x06ticker\x15\x00";
    let named: Vec<usize> = (0..bytes.len() - field.len())
        .filter(|at| bytes[*at..].starts_with(field))
        .collect();
    assert_eq!(named.len(), 1);
    bytes[named[0] + field.len() - 1] = 3 << 1;
    let error = decoded(&bytes).unwrap_err().to_string();
    let wanted = "column ticker (compressed by LZO)";
    assert!(error.contains(wanted), "{error}");
    assert!(
        error.ends_with("write it with another one, for example zstd"),
        "{error}"
    );
}

#[test]
fn what_a_file_may_hold_is_bounded() {
    let long = "A".repeat(CELL_BYTES_MAX + 1);
    let rows = 300;
    let columns = [
        Values::Bytes(vec![long.into_bytes(); rows]),
        Values::Bytes(vec![b"standard".to_vec(); rows]),
        Values::Int(vec![30; rows]),
        Values::Double(vec![1.0; rows]),
    ];
    // A dictionary holds the long text once.
    let bomb = written(PLAIN, Compression::ZSTD(ZstdLevel::default()), &columns);
    assert!(bomb.len() < 20_000, "{}", bomb.len());
    let error = decoded(&bomb).unwrap_err().to_string();
    assert!(
        error.contains("row 1: the ticker is longer than 64 KiB"),
        "{error}"
    );
    let deep: Vec<u64> = std::iter::repeat_n(1, 900).chain([0]).collect();
    let error = decoded(&file_of(&metadata(&deep))).unwrap_err().to_string();
    assert!(error.contains("a book is flat"), "{error}");
    let deep: Vec<u64> = std::iter::repeat_n(1, 4000).chain([0]).collect();
    let error = decoded(&file_of(&metadata(&deep))).unwrap_err().to_string();
    assert!(error.contains("at most 1000"), "{error}");
}

#[test]
fn a_cut_or_damaged_file_is_an_error_and_nothing_else() {
    let whole = plain(Compression::SNAPPY);
    for cut in 0..whole.len() {
        assert!(decoded(&whole[..cut]).is_err(), "{cut}");
    }
    // Damage may go unseen in a value; it never ends the reader.
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        let _ = std::panic::catch_unwind(|| decoded(&bytes));
    }
}
