use super::*;
use proptest::prelude::*;

fn check(bytes: &str, expected: &[FromWorker]) {
    assert_eq!(read(bytes.as_bytes()).expect(bytes).says, expected);
}

#[test]
fn a_worker_asks_for_an_address() {
    let address: Address = "tcp:127.0.0.1:8080".parse().unwrap();
    let (otherwise, holder) = (Otherwise::Nothing, Holder::Unknown);
    let plain = Listen { address, id: 7, answer: AnswerTo::Sender, umask: None, otherwise, holder };
    check("LISTEN=tcp:127.0.0.1:8080\nID=7\n", &[FromWorker::Listen(plain.clone())]);
    let answered = Listen { answer: AnswerTo::AttachedSocket, ..plain.clone() };
    check("LISTEN=tcp:127.0.0.1:8080\nID=7\nREPLY=1", &[FromWorker::Listen(answered)]);
    let shim = Listen { otherwise: Otherwise::BindsItself, holder: Holder::Pipe, umask: Some(0o27), ..plain };
    check("LISTEN=tcp:127.0.0.1:8080\nID=7\nALONE=1\nHOLD=1\nUMASK=27", &[FromWorker::Listen(shim)]);
}

#[test]
fn a_program_asks_what_it_inherited() {
    let answer = AnswerTo::AttachedSocket;
    check("FOLLOW=4711\nREPLY=1", &[FromWorker::Follow(Follow { inode: 4711, answer })]);
    let accepting = FromWorker::Accepting { id: 1, backlog: None, answer: Some(answer) };
    check("ACCEPTING=tcp:0.0.0.0:1\nID=1\nREPLY=1", &[accepting]);
    let accepting = FromWorker::Accepting { id: 1, backlog: None, answer: Some(AnswerTo::Sender) };
    check("ACCEPTING=tcp:0.0.0.0:1\nID=1\nREPLY=0", &[accepting]);
}

#[test]
fn sd_notify_packets_are_understood() {
    check("READY=1\nSTATUS=serving\nMAINPID=4\n", &[FromWorker::Ready, FromWorker::Status("serving".into())]);
    check("WATCHDOG=1", &[FromWorker::Watchdog]);
    for text in ["REPLACE=no memory", "maitred REPLACE=no memory"] {
        check(text, &[FromWorker::Replace("no memory".into())]);
        assert!(FromWorker::Replace(String::new()).is_notification());
    }
    check("", &[]);
}

#[test]
fn garbage_is_named() {
    assert_eq!(read(b"\xff\xfe"), Err(Malformed::NotText));
    assert_eq!(read(b"hello"), Err(Malformed::NoKey("hello".into())));
    assert_eq!(read(b"LISTEN=tcp:127.0.0.1:1\n"), Err(Malformed::NoId("LISTEN")));
    assert!(matches!(read(b"LISTEN=nowhere\nID=1"), Err(Malformed::Value { key: "LISTEN", .. })));
    assert!(matches!(read(b"PING=x"), Err(Malformed::Value { key: "PING", .. })));
}

#[test]
fn a_negative_backlog_is_the_longest() {
    check(
        "ACCEPTING=tcp:0.0.0.0:1\nID=1\nBACKLOG=-1",
        &[FromWorker::Accepting { id: 1, backlog: Some(u32::MAX), answer: None }],
    );
}

#[test]
fn the_masters_words_survive_being_written_and_read() {
    let address: Address = "unix:/run/x.sock".parse().unwrap();
    for message in [
        ToWorker::Listening {
            address: address.clone(),
            id: 1,
            via: Via::Handoff,
            ownership: Ownership::Adopted,
            count: None,
        },
        ToWorker::Listening {
            address: address.clone(),
            id: 2,
            via: Via::Shared,
            ownership: Ownership::Master,
            count: Some(Count { place: 3, path: "/proc/1/fd/9".to_owned() }),
        },
        ToWorker::Follows { address: address.clone(), id: 6, via: Via::Handoff, listens: Listens::Yes, count: None },
        ToWorker::Follows { address, id: 7, via: Via::Shared, listens: Listens::NotYet, count: None },
        ToWorker::Private { id: 8 },
        ToWorker::Accepted { id: 9 },
        ToWorker::Error { errno: 98, id: 3 },
        ToWorker::Ping(4),
        ToWorker::Pong(5),
        ToWorker::Stop,
    ] {
        assert_eq!(read_answer(write(&message).as_bytes()), Ok(Some(message)));
    }
}

#[test]
fn a_name_keeps_its_carriage_return() {
    let path = Address::Unix("/run/a\r".into());
    assert!(matches!(&read(b"LISTEN=unix:/run/a\r\nID=1\n").unwrap().says[..],
        [FromWorker::Listen(Listen { address, .. })] if *address == path));
    let message = ToWorker::Follows { address: path, id: 1, via: Via::Handoff, listens: Listens::Yes, count: None };
    assert_eq!(read_answer(write(&message).as_bytes()), Ok(Some(message)));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
        let _ = read(&bytes);
        let _ = read_answer(&bytes);
    }
}

#[test]
fn what_the_library_writes_is_what_is_read() {
    let address: Address = "tcp:127.0.0.1:80".parse().unwrap();
    let (otherwise, holder) = (Otherwise::Nothing, Holder::Unknown);
    let listen = Listen { address: address.clone(), id: 7, answer: AnswerTo::Sender, umask: None, otherwise, holder };
    check(&write_listen(&address, 7), &[FromWorker::Listen(listen)]);
    let accepting = FromWorker::Accepting { id: 7, backlog: Some(511), answer: None };
    check(&write_note("ACCEPTING", &address, 7, Some(511)), &[accepting]);
    check(&write_note("CLOSE", &address, 7, None), &[FromWorker::Close { id: 7 }]);
}

#[test]
fn only_what_sd_notify_can_say_is_a_notification() {
    for text in ["READY=1", "STOPPING=1", "STATUS=x", "WATCHDOG=1"] {
        assert!(read(text.as_bytes()).unwrap().says.iter().all(FromWorker::is_notification), "{text}");
    }
    for text in ["LISTEN=tcp:127.0.0.1:1\nID=1", "CLOSE=tcp:127.0.0.1:1\nID=1", "PING=1", "PONG=1", "FOLLOW=1"] {
        let says = read(text.as_bytes()).unwrap().says;
        assert!(says.len() == 1 && !says[0].is_notification(), "{text}");
    }
}

#[test]
fn what_is_malformed_is_said() {
    let value = Malformed::Value { key: "ID", value: "x".to_owned() };
    let said =
        [Malformed::NotText, Malformed::TooLong, Malformed::NoKey("x".to_owned()), value, Malformed::NoId("LISTEN")];
    let expected = [
        "not UTF-8",
        "longer than 4096 bytes",
        "line \"x\" has no '='",
        "ID=\"x\" makes no sense",
        "LISTEN without ID",
    ];
    assert_eq!(said.map(|malformed| malformed.to_string()), expected);
}
