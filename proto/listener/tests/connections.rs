//! Are there never more connections than allowed, and does a silent one end?
#![expect(clippy::unwrap_used, reason = "in a test, a panic is how it fails")]

use std::{
    io::ErrorKind,
    net::SocketAddr,
    num::NonZeroUsize,
    pin::pin,
    time::{Duration, Instant},
};

use craq_listener::{Connection, Limits, connections};
use futures::{FutureExt as _, Stream, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

const PREFACE_TIMEOUT: Duration = Duration::from_millis(200);
const WRITE_TIMEOUT: Duration = Duration::from_millis(300);

async fn listen() -> (SocketAddr, impl Stream<Item = Connection>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections_max = NonZeroUsize::new(2).unwrap();
    let limits = Limits { connections_max, preface_timeout: PREFACE_TIMEOUT, write_timeout: WRITE_TIMEOUT };
    (address, connections(listener, limits).map(Result::unwrap))
}

#[tokio::test]
async fn one_too_many_is_closed_and_those_that_are_there_stay() {
    let (address, accepted) = listen().await;
    let mut accepted = pin!(accepted);
    let mut first = TcpStream::connect(address).await.unwrap();
    let mut first_here = accepted.next().await.unwrap();
    let second = TcpStream::connect(address).await.unwrap();
    let second_here = accepted.next().await.unwrap();
    let mut third = TcpStream::connect(address).await.unwrap();
    assert!(timeout(PREFACE_TIMEOUT / 4, accepted.next()).await.is_err(), "a third is taken");
    // Closed at once, with or without a reset.
    assert_eq!(third.read(&mut [0]).await.unwrap_or(0), 0);
    first.write_all(b"x").await.unwrap();
    assert_eq!(first_here.read_u8().await.unwrap(), b'x');
    drop((second, second_here));
    assert!(accepted.next().now_or_never().is_none(), "the third was closed, it does not wait");
    let _fourth = TcpStream::connect(address).await.unwrap();
    accepted.next().await.unwrap();
}

#[tokio::test]
async fn one_that_does_not_begin_in_time_ends_however_it_drips() {
    let (address, accepted) = listen().await;
    let mut accepted = pin!(accepted);
    let client = TcpStream::connect(address).await.unwrap();
    let mut here = accepted.next().await.unwrap();
    let began = Instant::now();
    let (_reads, mut writes) = client.into_split();
    let drip = tokio::spawn(async move {
        while writes.write_all(b"P").await.is_ok() {
            sleep(PREFACE_TIMEOUT / 10).await;
        }
    });
    let error = loop {
        if let Err(error) = here.read_u8().await {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(began.elapsed() >= PREFACE_TIMEOUT);
    drip.abort();
}

#[tokio::test]
async fn one_that_has_begun_may_be_silent() {
    let (address, accepted) = listen().await;
    let mut accepted = pin!(accepted);
    let mut client = TcpStream::connect(address).await.unwrap();
    let mut here = accepted.next().await.unwrap();
    client.write_all(&[0; 33]).await.unwrap();
    here.read_exact(&mut [0; 33]).await.unwrap();
    let silent = timeout(PREFACE_TIMEOUT * 2, here.read_u8()).await;
    assert!(silent.is_err(), "{silent:?}");
}

#[tokio::test]
async fn one_that_reads_nothing_ends_and_one_that_reads_slowly_goes_on() {
    let (address, accepted) = listen().await;
    let mut accepted = pin!(accepted);
    let deaf = TcpStream::connect(address).await.unwrap();
    let mut here = accepted.next().await.unwrap();
    let error = loop {
        if let Err(error) = here.write_all(&[0; 65_536]).await {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    drop((deaf, here));

    let mut slow = TcpStream::connect(address).await.unwrap();
    let mut here = accepted.next().await.unwrap();
    let written = tokio::spawn(async move { here.write_all(&vec![0; 16 << 20]).await });
    let mut buffer = vec![0; 4 << 20];
    for _ in 0..4 {
        sleep(WRITE_TIMEOUT / 2).await;
        slow.read_exact(&mut buffer).await.unwrap();
    }
    written.await.unwrap().unwrap();
}
