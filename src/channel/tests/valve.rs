//! A router between two ends, which forgets the connections that it knows when it is told to: what belongs to them is swallowed
//! from then on, and new ones are let through.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

#[derive(Default, Clone)]
pub(super) struct Valve {
    /// Cancelled for the connections of now.
    forgotten: Arc<Mutex<CancellationToken>>,
}

impl Valve {
    pub(super) fn forget(&self) {
        std::mem::take(&mut *self.forgotten.lock().unwrap()).cancel();
    }

    fn current(&self) -> CancellationToken {
        self.forgotten.lock().unwrap().clone()
    }

    /// The address of a way to a TCP port.
    pub(super) async fn tcp(&self, to: SocketAddr) -> SocketAddr {
        let (listener, valve) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), self.clone());
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let forgotten = valve.current();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(to).await.unwrap();
                    tokio::select! {
                        biased;
                        // Both ends believe in it.
                        () = forgotten.cancelled() => std::future::pending().await,
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                    }
                });
            }
        });
        addr
    }

    /// The address of a way to a UDP port.
    pub(super) async fn udp(&self, to: SocketAddr) -> SocketAddr {
        let (near, valve) = (Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap()), self.clone());
        let addr = near.local_addr().unwrap();
        tokio::spawn(async move {
            let mut flows: HashMap<SocketAddr, (Arc<UdpSocket>, CancellationToken)> = HashMap::new();
            let mut buf = vec![0; 65_536];
            loop {
                let (len, from) = near.recv_from(&mut buf).await.unwrap();
                let (far, forgotten) = match flows.entry(from) {
                    Entry::Occupied(flow) => flow.into_mut(),
                    Entry::Vacant(flow) => {
                        let far = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                        let (forgotten, back) =
                            (valve.current(), answers(Arc::clone(&far), Arc::clone(&near), from));
                        let ends = forgotten.clone();
                        tokio::spawn(async move { ends.run_until_cancelled(back).await });
                        flow.insert((far, forgotten))
                    }
                };
                if !forgotten.is_cancelled() {
                    far.send_to(&buf[..len], to).await.unwrap();
                }
            }
        });
        addr
    }
}

async fn answers(far: Arc<UdpSocket>, near: Arc<UdpSocket>, client: SocketAddr) {
    let mut buf = vec![0; 65_536];
    loop {
        let len = far.recv(&mut buf).await.unwrap();
        near.send_to(&buf[..len], client).await.unwrap();
    }
}
