//! A TCP proxy in front of a process, that can be cut: bytes stop, connections stay open, new ones get no answer. So a
//! network looks that swallows packets.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::watch,
    task::AbortHandle,
};

/// What happens to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// They pass.
    Open,
    /// They pass after this time, in both directions.
    Slow(Duration),
    /// They are held back, both ways, until the proxy is open again.
    Cut,
}

/// A proxy, until it is dropped.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    task: AbortHandle,
}

impl Proxy {
    /// Listens on an address of its own and hands on to `target`.
    pub async fn start(target: &str) -> Self {
        let listener = TcpListener::bind(crate::process::free_address()).await.expect("a port for the proxy");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Arc::new(watch::Sender::new(State::Open));
        let task = tokio::spawn(accept(listener, target.to_owned(), Arc::clone(&state))).abort_handle();
        Self { address, state, task }
    }

    /// Where to connect.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on.
    pub fn set(&self, state: State) {
        self.state.send_replace(state);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, target: String, state: Arc<watch::Sender<State>>) {
    while let Ok((near, _)) = listener.accept().await {
        let (target, mut view) = (target.clone(), state.subscribe());
        tokio::spawn(async move {
            passable(&mut view).await;
            let Ok(far) = TcpStream::connect(&target).await else { return };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
            tokio::spawn(pass(near_read, far_write, view.clone()));
            pass(far_read, near_write, view).await;
        });
    }
}

/// Waits until bytes may pass, and for how long they travel.
async fn passable(state: &mut watch::Receiver<State>) {
    loop {
        let now = *state.borrow_and_update();
        match now {
            State::Open => return,
            State::Slow(time) => return tokio::time::sleep(time).await,
            State::Cut => {
                if state.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(bytes) = from.read(&mut buffer).await {
        passable(&mut state).await;
        if bytes == 0 || to.write_all(&buffer[..bytes]).await.is_err() {
            break;
        }
    }
}
