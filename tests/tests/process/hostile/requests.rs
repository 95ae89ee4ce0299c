//! Calls that no correct client makes, over a correct HTTP/2 library.

use std::{fmt, time::Duration};

use bytes::Bytes;
use craq_proto::wire;
use craq_tests::{
    hostile::{Mutator, target},
    process::{Cluster, ask},
};
use futures::{StreamExt as _, stream};
use h2::client::SendRequest;
use http::{HeaderName, HeaderValue, Method, Request};
use prost::Message;
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{net::TcpStream, time::timeout};

/// Calls at once.
const AT_ONCE: usize = 32;
/// A call is answered, or its connection closed, within this time.
const ANSWER: Duration = Duration::from_secs(10);
/// The deadline that calls name, so that those which wait for something end.
const NAMED_TIMEOUT: &str = "200m";

const METHODS: [&str; 20] = [
    "/craq.v1.Kv/Read",
    "/craq.v1.Kv/Write",
    "/craq.v1.Kv/Delete",
    "/craq.v1.Kv/Scan",
    "/craq.v1.Kv/GetNodeStatus",
    "/craq.v1.Chain/Link",
    "/craq.v1.Chain/Transfer",
    "/craq.v1.Chain/LatestVersions",
    "/craq.v1.Chain/Ping",
    "/craq.v1.Coordinator/Register",
    "/craq.v1.Coordinator/GetView",
    "/craq.v1.Coordinator/WatchViews",
    "/craq.v1.Coordinator/Write",
    "/craq.v1.Coordinator/GetStatus",
    "/craq.v1.Coordinator/RemoveNode",
    "/craq.v1.Coordinator/Reorder",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/craq.v1.Kv/Unknown",
    "/",
];

/// What an attacker who has looked around knows: messages with it get past the first checks.
pub(super) struct About {
    header: wire::Header,
}

impl About {
    pub(super) async fn of(cluster: &Cluster) -> Self {
        let status = ask::cluster(cluster.coordinator_address()).await.expect("a status");
        let known = status.header.expect("a header");
        let header = wire::Header {
            cluster_id: known.cluster_id,
            chain: "default".into(),
            epoch: u64::MAX >> 1,
            sender: vec![9; 16].into(),
            incarnation: 1,
        };
        Self { header }
    }

    /// Well formed, and with numbers at their ends.
    fn extreme(&self, random: &mut StdRng) -> (&'static str, Vec<u8>) {
        let number =
            |random: &mut StdRng| [0, 1, u64::MAX >> 1, u64::MAX - 1, u64::MAX][random.random_range(0..5)];
        let header = Some(wire::Header { epoch: number(random), ..self.header.clone() });
        let id = wire::RequestId {
            client: vec![8; 16].into(),
            number: number(random),
            floor: number(random),
            born: number(random),
            retry: random.random(),
        };
        let chain = wire::ChainEpoch { chain: "default".into(), epoch: number(random) };
        let key = Bytes::from_static(b"hostile");
        match random.random_range(0..7) {
            0 => {
                let (bound_ms, min_seq) = (number(random), number(random));
                let consistency = random.random_range(-1..4);
                (
                    "/craq.v1.Kv/Read",
                    wire::ReadRequest { header, key, consistency, bound_ms, min_seq }.encode_to_vec(),
                )
            }
            1 => {
                let request = wire::WriteRequest {
                    header,
                    key,
                    value: vec![0; random.random_range(0..64)].into(),
                    if_version: Some(number(random)),
                    request_id: Some(id),
                    ..Default::default()
                };
                ("/craq.v1.Kv/Write", request.encode_to_vec())
            }
            2 => {
                let (limit, bound_ms, min_seq) = (number(random), number(random), number(random));
                let request = wire::ScanRequest { header, limit, bound_ms, min_seq, ..Default::default() };
                ("/craq.v1.Kv/Scan", request.encode_to_vec())
            }
            3 => {
                let request =
                    wire::PingRequest { header, chains: vec![chain.clone(); 9], released: vec![chain; 9] };
                ("/craq.v1.Chain/Ping", request.encode_to_vec())
            }
            4 => {
                let request = wire::LatestVersionsRequest { header, keys: vec![key; 2_000] };
                ("/craq.v1.Chain/LatestVersions", request.encode_to_vec())
            }
            5 => {
                let body = Some(wire::link_message::Body::Open(wire::Open {}));
                ("/craq.v1.Chain/Link", wire::LinkMessage { header, body }.encode_to_vec())
            }
            _ => {
                let order = vec![Bytes::from_static(&[9; 16]); 1_000];
                ("/craq.v1.Coordinator/Reorder", wire::ReorderRequest { header, order }.encode_to_vec())
            }
        }
    }
}

/// One call.
struct Call {
    request: Request<()>,
    body: Bytes,
}

/// Makes calls, the same ones for the same seed.
struct Maker<'a> {
    about: &'a About,
    random: StdRng,
    messages: Mutator,
    links: Mutator,
}

impl<'a> Maker<'a> {
    fn new(about: &'a About, seed: u64) -> Self {
        let mutator = |name| Mutator::new(seed, (target(name).seeds)());
        let random = StdRng::seed_from_u64(seed);
        Self { about, random, messages: mutator("messages"), links: mutator("link") }
    }

    fn next_call(&mut self) -> Call {
        let mut path = METHODS[self.random.random_range(0..METHODS.len())].to_owned();
        let mut body = framed(0, &self.noise(200));
        match self.random.random_range(0..10) {
            // A node that presents itself correctly would be taken into the chain.
            0..=2 if !path.ends_with("Register") => {
                let mutated = self.messages.next_input();
                body = framed(0, mutated.get(1..).unwrap_or_default());
            }
            3 => {
                path =
                    ["/craq.v1.Chain/Link", "/craq.v1.Chain/Transfer"][self.random.random_range(0..2)].into();
                body = framed(0, &self.links.next_input());
            }
            4 | 5 => {
                let (method, message) = self.about.extreme(&mut self.random);
                path = method.into();
                body = framed(0, &message);
            }
            6 => body = self.bad_frame(),
            7 => (path, body) = self.oversize(path),
            8 => {
                path = format!(
                    "/{}/{}",
                    "x".repeat(self.random.random_range(0..4_000)),
                    self.random.random::<u8>()
                )
            }
            _ => {}
        }
        Call { request: self.request(&path), body: body.into() }
    }

    fn noise(&mut self, most: usize) -> Vec<u8> {
        let mut noise = vec![0; self.random.random_range(0..most)];
        self.random.fill_bytes(&mut noise);
        noise
    }

    /// Wrong lengths, unknown flags, nothing.
    fn bad_frame(&mut self) -> Vec<u8> {
        let noise = self.noise(100);
        match self.random.random_range(0..6) {
            0 => vec![],
            1 => [&[0, 0xff, 0xff, 0xff, 0xff][..], &noise].concat(),
            2 => [&[0, 0, 0x3f, 0xff, 0xff][..], &noise].concat(),
            3 => framed(1, &noise),
            4 => framed(7, &noise),
            _ => noise,
        }
    }

    fn oversize(&mut self, path: String) -> (String, Vec<u8>) {
        let value = if self.random.random_ratio(1, 20) { 5 << 20 } else { 100 };
        let key = [0, 4_097, 60_000][self.random.random_range(0..3)];
        let write = wire::WriteRequest {
            key: vec![b'k'; key].into(),
            value: vec![b'v'; value].into(),
            ..Default::default()
        };
        let path = if self.random.random() { "/craq.v1.Kv/Write".to_owned() } else { path };
        (path, framed(0, &write.encode_to_vec()))
    }

    fn request(&mut self, path: &str) -> Request<()> {
        let method = if self.random.random_ratio(1, 30) { Method::GET } else { Method::POST };
        let kinds = ["application/grpc", "application/grpc+json", "text/plain", "application/json", "\u{7f}"];
        let kind =
            if self.random.random_ratio(1, 5) { kinds[self.random.random_range(1..5)] } else { kinds[0] };
        let timeouts = ["99999999H", "-1S", "1", "", "0n", "123456789012S"];
        let timeout = if self.random.random_ratio(1, 10) {
            timeouts[self.random.random_range(1..6)]
        } else {
            NAMED_TIMEOUT
        };
        let mut request =
            Request::builder().method(method).uri(format!("http://hostile{path}")).body(()).unwrap();
        let headers = request.headers_mut();
        for (name, value) in [("content-type", kind), ("te", "trailers"), ("grpc-timeout", timeout)] {
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                headers.insert(name, value);
            }
        }
        match self.random.random_range(0..12) {
            0 => drop(headers.insert("grpc-encoding", HeaderValue::from_static("gzip"))),
            1 => drop(headers.insert("trace-bin", HeaderValue::from_static("no base64!"))),
            2 => drop(headers.insert("long", "v".repeat(20 * 1_024).parse().unwrap())),
            3 => drop(headers.insert("bytes", HeaderValue::from_bytes(&[0x80, 0xff, b'\t', b' ']).unwrap())),
            4 => drop(headers.remove("content-type")),
            5 => {
                let values = std::iter::repeat_n(HeaderValue::from_static("v"), 200);
                headers.extend(values.map(|value| (HeaderName::from_static("many"), value)));
            }
            _ => {}
        }
        request
    }
}

fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flag][..], &length, message].concat()
}

/// What became of the calls.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    /// With a status of whatever kind.
    pub(super) answered: usize,
    /// By a reset, or the end of the connection.
    pub(super) broken: usize,
    /// Not in time.
    pub(super) late: usize,
}

impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answered, {} broken off, {} late", self.answered, self.broken, self.late)
    }
}

/// Makes so many calls.
pub(super) async fn attack(target: &str, about: &About, seed: u64, count: usize) -> Outcomes {
    let each = (0..AT_ONCE).map(|worker| async move {
        let mut maker = Maker::new(about, seed * 1_000 + worker as u64);
        let (mut outcomes, mut connection) = (Outcomes::default(), None);
        for _ in 0..count / AT_ONCE {
            let call = maker.next_call();
            match timeout(ANSWER, one(target, &mut connection, call)).await {
                Ok(Ok(())) => outcomes.answered += 1,
                Ok(Err(_)) => {
                    outcomes.broken += 1;
                    connection = None;
                }
                Err(_) => outcomes.late += 1,
            }
        }
        outcomes
    });
    let all: Vec<Outcomes> = stream::iter(each).buffer_unordered(AT_ONCE).collect().await;
    let sum = |part: fn(&Outcomes) -> usize| all.iter().map(part).sum();
    Outcomes { answered: sum(|o| o.answered), broken: sum(|o| o.broken), late: sum(|o| o.late) }
}

async fn one(target: &str, connection: &mut Option<SendRequest<Bytes>>, call: Call) -> Result<(), h2::Error> {
    let client = match connection.take() {
        Some(client) => client,
        None => {
            let stream = TcpStream::connect(target).await.expect("the server accepts");
            let (client, driver) = h2::client::handshake(stream).await?;
            tokio::spawn(driver);
            client
        }
    };
    let mut client = client.ready().await?;
    let (response, mut stream) = client.send_request(call.request, false)?;
    *connection = Some(client);
    stream.send_data(call.body, true)?;
    // The rest of a stream is not waited for: it may have no end.
    response.await.map(drop)
}
