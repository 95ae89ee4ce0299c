//! HTTP/2 as no library writes it: frames made by hand, or none.

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::Bytes;
use craq_proto::wire;
use futures::{StreamExt as _, future::join_all, stream};
use http::Request;
use prost::Message as _;
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, tcp::OwnedWriteHalf},
    time::{sleep, timeout},
};

use super::CLOSED_WITHIN;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Has a value of a mebibyte.
pub(super) const LARGE_KEY: &str = "large";
/// Frames of a flood, and how many of them are written at once.
const FLOOD: u32 = 20_000;
const FLOOD_AT_ONCE: u32 = 100;
/// Connections that are being made at once: fewer than the kernel lets wait for a server that is busy.
const CONNECTS_AT_ONCE: usize = 50;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// POST http /craq.v1.Kv/Read, as HPACK without compression.
fn header_block() -> Vec<u8> {
    let path = b"/craq.v1.Kv/Read";
    let kind = b"application/grpc";
    let literal = |name: u8, value: &[u8]| [&[name, u8::try_from(value.len()).unwrap()][..], value].concat();
    // Indexed :method POST and :scheme http; :path, content-type and :authority by name.
    [
        vec![0x83, 0x86],
        literal(0x04, path),
        literal(0x01, b"a"),
        [vec![0x0f, 0x10, 16], kind.to_vec()].concat(),
    ]
    .concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Reads of a large value on many streams, with windows that never close.
fn deaf_reads() -> Vec<u8> {
    const WINDOW: u32 = 0x7fff_ffff;
    let settings = [&[0, 4][..], &WINDOW.to_be_bytes()].concat();
    let mut words = frame(SETTINGS, 0, 0, &settings);
    words.extend(frame(WINDOW_UPDATE, 0, 0, &(WINDOW - 65_535).to_be_bytes()));
    let message = wire::ReadRequest { key: LARGE_KEY.into(), ..Default::default() }.encode_to_vec();
    let body = [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()][..], &message].concat();
    for stream in (1..100).step_by(2) {
        words.extend(frame(HEADERS, END_HEADERS, stream, &header_block()));
        words.extend(frame(DATA, END_STREAM, stream, &body));
    }
    words
}

fn flood(frame: Vec<u8>) -> Vec<u8> {
    frame.repeat(FLOOD_AT_ONCE as usize)
}

/// Ways to abuse a connection after which the server has to close it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Attack {
    /// Connects and says nothing.
    Silence,
    /// Bytes that are no HTTP/2.
    Garbage,
    /// HTTP/1.1.
    OldHttp,
    /// The preface, a byte now and then.
    SlowPreface,
    /// The preface and settings, then nothing: no answer to a ping.
    HalfOpen,
    /// Half a frame, then nothing.
    HalfFrame,
    /// Opens streams and resets them.
    RapidReset,
    /// A header block that does not end.
    ContinuationFlood,
    /// One header, referred to ten thousand times.
    HeaderBomb,
    /// Settings, and their acknowledgements never read.
    SettingsFlood,
    /// Pings, and their answers never read.
    PingFlood,
    /// Asks for [`LARGE_KEY`] on many streams, and takes nothing from the socket.
    Deafness,
    /// A frame of sixteen megabytes.
    HugeFrame,
    /// A window that grows beyond what there can be.
    WindowOverflow,
    /// Data for no stream.
    DataForNoStream,
}

impl Attack {
    pub(super) const ALL: [Self; 15] = [
        Self::Silence,
        Self::Garbage,
        Self::OldHttp,
        Self::SlowPreface,
        Self::HalfOpen,
        Self::HalfFrame,
        Self::RapidReset,
        Self::ContinuationFlood,
        Self::HeaderBomb,
        Self::SettingsFlood,
        Self::PingFlood,
        Self::Deafness,
        Self::HugeFrame,
        Self::WindowOverflow,
        Self::DataForNoStream,
    ];

    /// Whether the other side's words are taken from the socket.
    fn reads(self) -> bool {
        !matches!(self, Self::SettingsFlood | Self::PingFlood | Self::Deafness)
    }

    /// What is said first.
    fn opening(self) -> Vec<u8> {
        let begun = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        let block = header_block();
        let with = |more: Vec<u8>| [begun.clone(), more].concat();
        match self {
            Self::Silence | Self::SlowPreface => vec![],
            Self::Garbage => (0..1_000_u32).map(|n| (n * 7 % 251) as u8).collect(),
            Self::OldHttp => b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            Self::HalfOpen => begun,
            Self::HalfFrame => with(frame(HEADERS, END_HEADERS, 1, &block)[..12].to_vec()),
            Self::ContinuationFlood => with(frame(HEADERS, 0, 1, &block)),
            Self::HeaderBomb => {
                // A literal with incremental indexing, then its index again and again.
                let literal = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'v'; 4_000]].concat();
                with(frame(HEADERS, END_HEADERS, 1, &[block, literal, vec![0xbe; 10_000]].concat()))
            }
            Self::Deafness => with(deaf_reads()),
            Self::HugeFrame => with([&[0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1][..], &[0; 100]].concat()),
            Self::WindowOverflow => {
                with(frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()).repeat(2))
            }
            Self::DataForNoStream => with(frame(DATA, 0, 0, b"x")),
            Self::RapidReset | Self::SettingsFlood | Self::PingFlood => begun,
        }
    }

    /// What is said again and again, if anything is; and the pause between.
    fn refrain(self, round: u32) -> Option<(Vec<u8>, Duration)> {
        match self {
            Self::SlowPreface => {
                let byte = PREFACE.get(round as usize).copied().unwrap_or(0);
                Some((vec![byte], Duration::from_millis(700)))
            }
            Self::RapidReset => {
                let one = |n| {
                    let stream = 2 * (FLOOD_AT_ONCE * round + n) + 1;
                    let open = frame(HEADERS, END_HEADERS, stream, &header_block());
                    [open, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
                };
                Some(((0..FLOOD_AT_ONCE).flat_map(one).collect(), Duration::ZERO))
            }
            Self::ContinuationFlood => {
                // A header without name and value, by literal.
                let block = [0x00, 1, b'y', 1, b'z'].repeat(10);
                Some((flood(frame(CONTINUATION, 0, 1, &block)), Duration::ZERO))
            }
            Self::SettingsFlood => Some((flood(frame(SETTINGS, 0, 0, &[])), Duration::ZERO)),
            Self::PingFlood => Some((flood(frame(PING, 0, 0, &[7; 8])), Duration::ZERO)),
            _ => None,
        }
    }
}

/// Carries an attack out; brings it, and how long it took until the server had closed the connection.
pub(super) async fn closed_after(target: &str, attack: Attack) -> (Attack, Duration) {
    let began = Instant::now();
    let stream = TcpStream::connect(target).await.expect("the server accepts");
    let (mut reads, mut writes) = stream.into_split();
    let talk = async |writes: &mut OwnedWriteHalf| {
        writes.write_all(&attack.opening()).await?;
        let mut round = 0;
        while let Some((words, pause)) = attack.refrain(round) {
            writes.write_all(&words).await?;
            round += 1;
            if pause.is_zero() && round == FLOOD / FLOOD_AT_ONCE {
                break;
            }
            sleep(pause).await;
        }
        Ok::<_, io::Error>(())
    };
    let listen = async {
        let mut heard = [0; 4_096];
        while reads.read(&mut heard).await.is_ok_and(|bytes| bytes > 0) {}
    };
    let over = async {
        if attack.reads() {
            // Whoever is done with talking listens until the end.
            let _ = tokio::join!(talk(&mut writes), listen);
        } else if talk(&mut writes).await.is_ok() {
            until_reset(&mut writes).await;
        }
    };
    timeout(CLOSED_WITHIN, over).await.unwrap_or_else(|_| panic!("{attack:?} goes on at {target}"));
    (attack, began.elapsed())
}

/// Says something now and then until the connection is gone: whoever reads nothing learns it in no other way.
async fn until_reset(writes: &mut OwnedWriteHalf) {
    while writes.write_all(&frame(PING, 0, 0, &[7; 8])).await.is_ok() {
        sleep(Duration::from_millis(100)).await;
    }
}

/// A call whose body comes a byte now and then, from a client that is otherwise correct; brings how long it was let.
pub(super) async fn slow_body(target: &str) -> Duration {
    let began = Instant::now();
    let stream = TcpStream::connect(target).await.expect("the server accepts");
    let (client, connection) = h2::client::handshake(stream).await.expect("a handshake");
    tokio::spawn(connection);
    let request =
        Request::post("http://a/craq.v1.Coordinator/GetView").header("content-type", "application/grpc");
    let mut client = client.ready().await.expect("a stream is free");
    let (response, mut body) = client.send_request(request.body(()).unwrap(), false).expect("a call");
    let drip = async {
        body.send_data(Bytes::from_static(&[0, 0, 1, 0, 0]), false).expect("the beginning is taken");
        while body.send_data(Bytes::from_static(b"x"), false).is_ok() {
            sleep(Duration::from_millis(200)).await;
        }
    };
    let answered = async {
        tokio::select! {
            _ = response => {}
            () = drip => {}
        }
    };
    timeout(CLOSED_WITHIN, answered)
        .await
        .unwrap_or_else(|_| panic!("a slow body is waited for at {target}"));
    began.elapsed()
}

/// Connections that say random frames; brings how long the last of them lived.
pub(super) async fn random_frames(target: &str, count: u64) -> Duration {
    let one = |seed| async move {
        let began = Instant::now();
        let mut random = StdRng::seed_from_u64(seed);
        let mut words = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        for _ in 0..random.random_range(1..30) {
            let mut payload = vec![0; random.random_range(0..64)];
            random.fill_bytes(&mut payload);
            words.extend(frame(
                random.random_range(0..12),
                random.random(),
                random.random_range(0..9),
                &payload,
            ));
        }
        let mut stream = TcpStream::connect(target).await.expect("the server accepts");
        let _ = stream.write_all(&words).await;
        let mut heard = [0; 4_096];
        let listen = async { while stream.read(&mut heard).await.is_ok_and(|bytes| bytes > 0) {} };
        timeout(CLOSED_WITHIN, listen).await.unwrap_or_else(|_| panic!("frames of seed {seed} are borne"));
        began.elapsed()
    };
    join_all((0..count).map(one)).await.into_iter().max().unwrap_or_default()
}

/// Connections that say nothing, or begin and then say nothing; brings how long the last of them lived.
pub(super) async fn silent_connections(target: &str, count: usize) -> Duration {
    let connect = |number: usize| async move {
        let mut stream = TcpStream::connect(target).await.expect("the server accepts");
        if number.is_multiple_of(8) {
            let _ = stream.write_all(&Attack::HalfOpen.opening()).await;
        }
        (Instant::now(), stream)
    };
    let begun: Vec<_> =
        stream::iter((0..count).map(connect)).buffer_unordered(CONNECTS_AT_ONCE).collect().await;
    let one = |(began, mut stream): (Instant, TcpStream)| async move {
        let mut heard = [0; 64];
        let listen = async { while stream.read(&mut heard).await.is_ok_and(|bytes| bytes > 0) {} };
        timeout(CLOSED_WITHIN, listen).await.unwrap_or_else(|_| panic!("{target} keeps a silent connection"));
        began.elapsed()
    };
    join_all(begun.into_iter().map(one)).await.into_iter().max().unwrap_or_default()
}

/// Opens connections that do as they should; brings those that were taken.
pub(super) async fn hold_connections(target: &str, count: usize) -> Vec<h2::client::SendRequest<Bytes>> {
    let mut held = vec![];
    for _ in 0..count {
        let stream = TcpStream::connect(target).await.expect("the kernel accepts");
        let Ok((client, mut connection)) = h2::client::handshake(stream).await else { continue };
        let Some(mut pings) = connection.ping_pong() else { continue };
        tokio::spawn(connection);
        let answer = timeout(Duration::from_secs(5), pings.ping(h2::Ping::opaque())).await;
        if answer.is_ok_and(|pong| pong.is_ok()) {
            held.push(client);
        }
    }
    held
}

#[test]
fn a_frame_is_as_the_standard_says() {
    let ping = frame(PING, END_STREAM, 0, &[7; 8]);
    assert_eq!(ping, [&[0, 0, 8, 6, 1, 0, 0, 0, 0][..], &[7; 8]].concat());
}
