//! A store that speaks S3, in this process, and goes wrong as it is told to.
//!
//! Creations are atomic; objects are in memory. What it does not speak: signatures, ranges, versions, multipart uploads,
//! pages of lists. It is there for what no other store can be told to do.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    time::sleep,
};

/// What becomes of a creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing unusual.
    None,
    /// Done, though it is there already: what a store does that looks first and writes then, when two creations meet.
    Unconditional,
    /// Done, and then 500.
    DoneThen500,
    /// Not done: 500.
    Refused500,
    /// Done, and then nothing.
    DoneThenSilence,
    /// Not done, since another one is under way: 409.
    Conflict,
    /// Nothing is said, and it is done after this time, if it still can be.
    Late(Duration),
}

/// How often the store was asked what, answered or not.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Requests {
    /// Creations.
    pub puts: usize,
    /// Objects read, or not there.
    pub gets: usize,
    /// Lists.
    pub lists: usize,
    /// Removals.
    pub deletes: usize,
}

#[derive(Debug, Default)]
struct Inner {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    faults: Mutex<VecDeque<Fault>>,
    is_out: Mutex<bool>,
    requests: Mutex<Requests>,
    ignores_conditions: bool,
    lists_all: Mutex<bool>,
}

/// The store. It ends with the runtime.
#[derive(Debug, Clone)]
pub struct S3 {
    inner: Arc<Inner>,
    /// Its URL.
    pub endpoint: String,
}

struct Request {
    method: String,
    /// Without the bucket.
    key: String,
    query: BTreeMap<String, String>,
    is_conditional: bool,
    body: Vec<u8>,
}

/// A status, and the body.
type Answer = (u16, String, Vec<u8>);

impl S3 {
    /// A store on a free port of this machine. `ignores_conditions`: as some do, creations always succeed.
    pub async fn start(ignores_conditions: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let inner = Arc::new(Inner { ignores_conditions, ..Inner::default() });
        let to = Arc::clone(&inner);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(Arc::clone(&to), connection));
            }
        });
        Self { inner, endpoint }
    }

    /// What becomes of the next creations.
    pub fn expect(&self, faults: impl IntoIterator<Item = Fault>) {
        self.inner.faults.lock().extend(faults);
    }

    /// No fault is to come any more.
    pub fn expect_nothing(&self) {
        self.inner.faults.lock().clear();
    }

    /// Whether nothing is answered at all.
    pub fn out(&self, is_out: bool) {
        *self.inner.is_out.lock() = is_out;
    }

    /// What the store was asked since this was last called.
    pub fn take_requests(&self) -> Requests {
        std::mem::take(&mut self.inner.requests.lock())
    }

    /// From now on lists begin at the beginning, wherever they are to begin: not every store knows that part.
    pub fn list_all(&self) {
        *self.inner.lists_all.lock() = true;
    }

    /// The names of all objects, without the bucket.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.inner.objects.lock().keys().cloned().collect()
    }
}

async fn serve(inner: Arc<Inner>, connection: TcpStream) {
    let mut connection = BufReader::new(connection);
    while let Some(request) = read(&mut connection).await {
        let Some((status, etag, body)) = answer(&inner, request).await else {
            // Silence, until the caller has had enough.
            return sleep(Duration::from_secs(60)).await;
        };
        let head = format!(
            "HTTP/1.1 {status} x\r\ncontent-length: {}\r\netag: {etag}\r\n\
             last-modified: Sat, 21 Nov 2026 12:00:00 GMT\r\n\r\n",
            body.len()
        );
        if connection.write_all(&[head.as_bytes(), &body].concat()).await.is_err() {
            return;
        }
    }
}

/// None: the connection has ended, or it is no request.
async fn read(connection: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    connection.read_line(&mut line).await.ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut is_conditional) = (0, false);
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "if-none-match" => is_conditional = value.trim() == "*",
            _ => {}
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await.ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let key = path.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key);
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = pairs.map(|(name, value)| (name.to_owned(), decoded(value))).collect();
    Some(Request { method, key: decoded(key), query, is_conditional, body })
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = (*first == b'%').then(|| after.get(..2)).flatten();
        let byte = hex.and_then(|hex| std::str::from_utf8(hex).ok());
        match byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn error(status: u16, code: &str) -> Answer {
    (
        status,
        String::new(),
        format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>").into_bytes(),
    )
}

/// None: silence.
async fn answer(inner: &Arc<Inner>, request: Request) -> Option<Answer> {
    count(inner, &request);
    if *inner.is_out.lock() {
        return None;
    }
    let ok = |body: Vec<u8>| Some((200, "\"e\"".to_owned(), body));
    match request.method.as_str() {
        "PUT" => put(inner, request),
        "GET" if request.key.is_empty() => ok(list(inner, &request.query)),
        "GET" | "HEAD" => match inner.objects.lock().get(&request.key).cloned() {
            Some(object) => ok(object),
            None => Some(error(404, "NoSuchKey")),
        },
        "DELETE" => {
            inner.objects.lock().remove(&request.key);
            Some((204, String::new(), Vec::new()))
        }
        _ => Some(error(405, "MethodNotAllowed")),
    }
}

fn count(inner: &Inner, request: &Request) {
    let mut requests = inner.requests.lock();
    let counter = match request.method.as_str() {
        "PUT" => &mut requests.puts,
        "DELETE" => &mut requests.deletes,
        _ if request.key.is_empty() => &mut requests.lists,
        _ => &mut requests.gets,
    };
    *counter += 1;
}

fn put(inner: &Arc<Inner>, request: Request) -> Option<Answer> {
    let Request { key, body, is_conditional, .. } = request;
    let fault = inner.faults.lock().pop_front();
    let is_conditional = is_conditional && !inner.ignores_conditions && fault != Some(Fault::Unconditional);
    let create = move |inner: &Inner| {
        let mut objects = inner.objects.lock();
        if is_conditional && objects.contains_key(&key) {
            return error(412, "PreconditionFailed");
        }
        objects.insert(key, body);
        (200, "\"e\"".to_owned(), Vec::new())
    };
    match fault {
        None | Some(Fault::None | Fault::Unconditional) => Some(create(inner)),
        Some(Fault::DoneThen500) => {
            create(inner);
            Some(error(500, "InternalError"))
        }
        Some(Fault::Refused500) => Some(error(500, "InternalError")),
        Some(Fault::DoneThenSilence) => {
            create(inner);
            None
        }
        Some(Fault::Conflict) => Some(error(409, "ConditionalRequestConflict")),
        Some(Fault::Late(after)) => {
            let inner = Arc::clone(inner);
            tokio::spawn(async move {
                sleep(after).await;
                create(&inner);
            });
            None
        }
    }
}

fn list(inner: &Inner, query: &BTreeMap<String, String>) -> Vec<u8> {
    let of = |name: &str| query.get(name).map_or("", String::as_str);
    let objects = inner.objects.lock();
    let after = if *inner.lists_all.lock() { "" } else { of("start-after") };
    let found = objects.iter().filter(|(key, _)| key.starts_with(of("prefix")) && key.as_str() > after);
    let contents: String = found
        .map(|(key, body)| {
            let size = body.len();
            format!(
                "<Contents><Key>{key}</Key><LastModified>2026-11-21T12:00:00.000Z</LastModified>\
                 <ETag>\"e\"</ETag><Size>{size}</Size></Contents>"
            )
        })
        .collect();
    format!("<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>").into_bytes()
}
