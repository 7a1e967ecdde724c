//! Columns with a type, as a database or pandas exports them: judged by their value, not by the noughts that the type prints.

use std::sync::Arc;

use bytes::Bytes;
use parquet::data_type::{ByteArray, ByteArrayType, FixedLenByteArray, FixedLenByteArrayType};
use parquet::data_type::{DoubleType, Int64Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::decode::read_here;

/// Two positions: shares as a whole number, price as a decimal of six places, value as one of four, days as a double.
fn book(values: [i128; 2]) -> Bytes {
    let schema = "message book {
        required binary ticker (UTF8); required binary client_id (UTF8);
        required double loan_days; required int64 shares;
        required fixed_len_byte_array(9) share_price (DECIMAL(19,6));
        required fixed_len_byte_array(9) position_value (DECIMAL(19,4));
    }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).unwrap();
    let mut rows = file.next_row_group().unwrap();
    for text in ["GME", "standard"] {
        let mut column = rows.next_column().unwrap().unwrap();
        let cells = [ByteArray::from(text), ByteArray::from(text)];
        column
            .typed::<ByteArrayType>()
            .write_batch(&cells, None, None)
            .unwrap();
        column.close().unwrap();
    }
    let mut days = rows.next_column().unwrap().unwrap();
    days.typed::<DoubleType>()
        .write_batch(&[30.0, 7.0], None, None)
        .unwrap();
    days.close().unwrap();
    let mut shares = rows.next_column().unwrap().unwrap();
    shares
        .typed::<Int64Type>()
        .write_batch(&[1000, 1000], None, None)
        .unwrap();
    shares.close().unwrap();
    for units in [[2_500_500_i128; 2], values] {
        let cells = units.map(|units| {
            let bytes = units.to_be_bytes()[7..].to_vec();
            FixedLenByteArray::from(ByteArray::from(bytes))
        });
        let mut column = rows.next_column().unwrap().unwrap();
        column
            .typed::<FixedLenByteArrayType>()
            .write_batch(&cells, None, None)
            .unwrap();
        column.close().unwrap();
    }
    rows.close().unwrap();
    file.into_inner().unwrap().into()
}

#[test]
fn a_typed_number_is_its_value_and_its_pair_is_compared() {
    // 2500.5000 with four places; then a value that its shares and price are not worth.
    let book = book([25_005_000, 10_000]);
    let mut read = Vec::new();
    read_here(&book, &mut |line| {
        let position = line.cells.and_then(|cells| cells.read());
        read.push(
            position.map(|position| (position.loan_days, position.worth.value().to_string())),
        );
        true
    })
    .unwrap();
    assert_eq!(read[0], Ok((30, "2500.50".to_owned())));
    let reason = read[1].as_ref().unwrap_err();
    assert!(
        reason.contains("is 1.00, but 1000 shares at 2.500500 are worth 2500.50"),
        "{reason}"
    );
}
