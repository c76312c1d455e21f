//! The probe under attack: clients of the health or metrics address
//! cannot keep other clients from a response.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use keyvault_csi_e2e::driver::wait_for;
use libtest_mimic::Trial;

use crate::harness::{Node, harness};
use crate::plugin::Fixture;

trials! { "health":
    five_hundred_idle_clients_do_not_starve_the_probe,
    the_providers_probe_is_answered_under_the_same_attack,
    a_request_head_must_arrive_within_a_second,
    silent_connections_make_room,
    probes_within_a_second_share_one_check_of_the_socket,
    frequent_scrapes_get_the_last_rendering,
    the_provider_serves_health_at_its_configured_address,
}

/// The attack with the bound of an idle machine.
pub(crate) fn soak() -> Vec<Trial> {
    let exact = || starve(&Node::start(harness().release_setup())?, Duration::from_secs(1));
    vec![crate::trial("health::soak_every_probe_within_a_second", exact).with_ignored_flag(true)]
}

/// The number of clients of each kind.
const IDLE: usize = 500;
const TRICKLING: usize = 50;
const READING_NOTHING: usize = 50;
const PROBES: usize = 100;

/// The pause between two probes.
const PAUSE: Duration = Duration::from_millis(30);

/// The time for a probe while other tests run; a kubelet's timeout is ten seconds.
const PATIENCE: Duration = Duration::from_secs(8);

/// Clients that do what any pod can do.
struct Attack {
    address: SocketAddr,
    path: &'static str,
    over: AtomicBool,
    /// Idle clients that the server closed, bytes that trickled, and requests that were sent.
    count: [AtomicU64; 3],
}

impl Attack {
    fn new(address: &str, path: &'static str) -> Result<Attack> {
        Ok(Attack { address: address.parse()?, path, over: AtomicBool::new(false), count: Default::default() })
    }

    fn is_running(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    fn connect(&self) -> Option<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).ok()?;
        stream.set_nonblocking(true).ok()?;
        Some(stream)
    }

    /// Silent connections; opens each again that the server closes.
    fn stay_idle(&self) {
        let mut held: Vec<Option<TcpStream>> = (0..IDLE).map(|_| self.connect()).collect();
        while self.is_running() {
            for connection in &mut held {
                let open = connection.as_mut().is_some_and(|stream| {
                    stream.read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
                });
                if !open {
                    self.count[0].fetch_add(1, Ordering::Relaxed);
                    *connection = self.connect();
                }
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Request heads that arrive byte by byte and never end.
    fn trickle(&self) {
        let mut held: Vec<(Option<TcpStream>, usize)> = (0..TRICKLING).map(|_| (self.connect(), 0)).collect();
        let head = format!("GET {} HTTP/1.1\r\nx: ", self.path);
        while self.is_running() {
            for (connection, at) in &mut held {
                let byte = head.as_bytes().get(*at).copied().unwrap_or(b'y');
                *at += 1;
                let written = connection.as_mut().is_some_and(|stream| stream.write(&[byte]).is_ok());
                self.count[1].fetch_add(1, Ordering::Relaxed);
                if !written {
                    (*connection, *at) = (self.connect(), 0);
                }
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Valid requests without pause, whose responses stay unread.
    fn read_nothing(&self) {
        let mut held: Vec<Option<TcpStream>> = (0..READING_NOTHING).map(|_| self.connect()).collect();
        let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", self.path);
        while self.is_running() {
            for connection in &mut held {
                let written = connection.as_mut().is_some_and(|stream| stream.write(request.as_bytes()).is_ok());
                self.count[2].fetch_add(1, Ordering::Relaxed);
                if !written {
                    *connection = self.connect();
                }
            }
            // One thread for all fifty. It never waits for the server,
            // but yields to it on a small machine.
            std::thread::yield_now();
        }
    }

    /// Attacks while `probes` runs.
    fn during<T>(&self, probes: impl FnOnce() -> Result<T>) -> Result<T> {
        std::thread::scope(|scope| {
            scope.spawn(|| self.stay_idle());
            scope.spawn(|| self.trickle());
            scope.spawn(|| self.read_nothing());
            let under_way = || Ok(self.count.iter().all(|count| count.load(Ordering::Relaxed) > 100));
            let outcome =
                wait_for("the attack is under way", Duration::from_secs(30), under_way).and_then(|()| probes());
            self.over.store(true, Ordering::Relaxed);
            outcome
        })
    }
}

/// Probes on new connections, as from a kubelet; each must have a 200 within `bound`.
fn probe_all(address: &str, path: &str, bound: Duration) -> Result<()> {
    let mut slowest = Duration::ZERO;
    for number in 0..PROBES {
        let began = Instant::now();
        let response = get(address, path, bound).with_context(|| format!("probe {number}"))?;
        ensure!(response.starts_with("HTTP/1.1 200 "), "probe {number}: {response}");
        slowest = slowest.max(began.elapsed());
        // Spread over some seconds, so that clients time out and
        // checks of the socket start anew meanwhile.
        std::thread::park_timeout(PAUSE);
    }
    ensure!(slowest <= bound, "the slowest of {PROBES} probes took {slowest:?}");
    Ok(())
}

/// The response to a GET, with a read timeout of `patience`.
fn get(address: &str, path: &str, patience: Duration) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address.parse()?, patience)?;
    stream.set_read_timeout(Some(patience))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response)
}

fn health_address(node: &Node) -> String {
    format!("{}:9808", node.setup().address)
}

fn starve(node: &Node, bound: Duration) -> Result<()> {
    let address = health_address(node);
    // A second attack on the metrics of the same process,
    // which have a connection limit of their own.
    let attack = Attack::new(&address, "/healthz")?;
    let on_metrics = Attack::new(&format!("{}:8095", node.setup().address), "/metrics")?;
    on_metrics.during(|| attack.during(|| probe_all(&address, "/healthz", bound)))?;
    let open = std::fs::read_dir(format!("/proc/{}/fd", node.id()))?.count();
    ensure!(open < 700, "{open} descriptors are open");
    ensure!(node.metrics()?.contains("target_info{"));
    Ok(())
}

fn five_hundred_idle_clients_do_not_starve_the_probe() -> Result<()> {
    starve(&harness().node()?, PATIENCE)
}

fn the_providers_probe_is_answered_under_the_same_attack() -> Result<()> {
    let fixture = Fixture::new(&[])?;
    let address = format!("127.0.0.1:{}", fixture.provider.setup().ports[0]);
    let attack = Attack::new(&address, "/healthz")?;
    attack.during(|| probe_all(&address, "/healthz", PATIENCE))
}

/// How long the server keeps a connection open after `sent`, at most `patience`.
fn kept_for(stream: &mut TcpStream, sent: &[u8], patience: Duration) -> Result<Duration> {
    let began = Instant::now();
    stream.write_all(sent)?;
    stream.set_read_timeout(Some(patience))?;
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => Ok(began.elapsed()),
        // The server closed with unread data.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(began.elapsed()),
        Err(error) => Err(error).with_context(|| format!("after {:?}", began.elapsed())),
    }
}

fn a_request_head_must_arrive_within_a_second() -> Result<()> {
    let node = harness().node()?;
    for port in [8095, 9808] {
        for sent in ["", "GET /healthz HTTP/1.1\r\n"] {
            let mut stream = TcpStream::connect((node.setup().address.as_str(), port))?;
            let kept = kept_for(&mut stream, sent.as_bytes(), Duration::from_secs(20))?;
            let second = Duration::from_millis(900)..Duration::from_secs(8);
            ensure!(second.contains(&kept), "{sent:?} on {port}: closed after {kept:?}");
        }
    }
    Ok(())
}

fn silent_connections_make_room() -> Result<()> {
    let node = harness().node()?;
    let address = health_address(&node);
    let mut oldest = TcpStream::connect(&address)?;
    // More than the connection limit.
    let crowd: Vec<TcpStream> = (0..400).map(|_| TcpStream::connect(&address)).collect::<Result<_, _>>()?;
    ensure!(get(&address, "/healthz", PATIENCE)?.starts_with("HTTP/1.1 200 "));
    let open = std::fs::read_dir(format!("/proc/{}/fd", node.id()))?.count();
    ensure!(open <= 256 + 64, "{open} descriptors are open");
    kept_for(&mut oldest, b"", Duration::from_secs(20))?;
    drop(crowd);
    Ok(())
}

/// Counts the checks with a socket in place of the driver's own.
fn probes_within_a_second_share_one_check_of_the_socket() -> Result<()> {
    let node = harness().node()?;
    let socket = node.setup().socket();
    std::fs::rename(&socket, socket.with_extension("away"))?;
    let listener = std::os::unix::net::UnixListener::bind(&socket)?;
    listener.set_nonblocking(true)?;
    let address = health_address(&node);
    // The socket does not answer: a check takes its three seconds, and fails for all probes that
    // arrive meanwhile.
    let responses: Vec<Result<String>> = std::thread::scope(|scope| {
        let probes: Vec<_> =
            (0..50).map(|_| scope.spawn(|| get(&address, "/healthz", Duration::from_secs(20)))).collect();
        probes.into_iter().map(|probe| probe.join().unwrap()).collect()
    });
    for response in responses {
        let response = response?;
        ensure!(response.starts_with("HTTP/1.1 503 ") && response.contains("no answer to Probe"), "{response}");
    }
    let checks = std::iter::from_fn(|| listener.accept().ok()).count();
    // Two, if the machine needs longer than one check to start the threads.
    ensure!((1..=2).contains(&checks), "{checks} checks of the socket");
    Ok(())
}

fn frequent_scrapes_get_the_last_rendering() -> Result<()> {
    let node = harness().node()?;
    let first = node.metrics()?;
    for _ in 0..100 {
        ensure!(node.metrics()?.len() == first.len());
    }
    // Later scrapes have new counts.
    let absent = harness().vault().volume("absent");
    node.refused(&absent)?;
    wait_for("the failure is counted", Duration::from_secs(5), || {
        Ok(node.metrics()?.contains("node_publish_error_total{"))
    })
}

fn the_provider_serves_health_at_its_configured_address() -> Result<()> {
    let fixture = Fixture::new(&["--healthz-addr=127.0.0.7"])?;
    let port = fixture.provider.setup().ports[0];
    ensure!(get(&format!("127.0.0.7:{port}"), "/healthz", PATIENCE)?.starts_with("HTTP/1.1 200 "));
    ensure!(TcpStream::connect(("127.0.0.1", port)).is_err(), "other addresses are served, too");
    let mut setup = harness().provider_setup();
    setup.flags.push("--healthz-addr=127.0.0.7:80".to_owned());
    let output = setup.command().output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && text.contains("an IP address such as 127.0.0.1"), "{text}");
    Ok(())
}
