//! moto's KMS, as whoever administers keys there speaks to it. It does not look at a key's state or at policies when it is asked to open.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

/// One call of KMS (`CreateKey` …) with a JSON body; its answer, as text.
pub fn moto_kms(port: u16, call: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("moto listens");
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: kms.us-east-1.amazonaws.com\r\nX-Amz-Target: TrentService.{call}\r\nContent-Type: application/x-amz-json-1.1\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/kms/aws4_request, SignedHeaders=host, Signature=0\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .expect("moto reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("moto answers");
    let (_, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    body.trim().to_owned()
}

/// The ARN of a new key.
pub fn moto_kms_key(port: u16) -> String {
    let made = moto_kms(port, "CreateKey", "{}");
    let (_, rest) = made.split_once("\"Arn\": \"").expect("an ARN");
    let (arn, _) = rest.split_once('"').expect("its end");
    arn.to_owned()
}
