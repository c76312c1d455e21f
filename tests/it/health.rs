//! The probe under attack: whoever reaches the address of health or metrics keeps nobody else from an answer.

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

/// What takes the bound of a machine that does nothing else.
pub(crate) fn soak() -> Vec<Trial> {
    let exact = || starve(&Node::start(harness().release_setup())?, Duration::from_secs(1));
    vec![crate::trial("health::soak_every_probe_within_a_second", exact).with_ignored_flag(true)]
}

/// How many clients of each kind there are.
const IDLE: usize = 500;
const TRICKLING: usize = 50;
const READING_NOTHING: usize = 50;
const PROBES: usize = 100;

/// Between two probes.
const PAUSE: Duration = Duration::from_millis(30);

/// In what time a probe must be answered while other tests run beside; a kubelet gives it ten seconds.
const PATIENCE: Duration = Duration::from_secs(8);

/// Clients that do what any pod can do, as long as the attack lasts.
struct Attack {
    address: SocketAddr,
    path: &'static str,
    over: AtomicBool,
    /// How often the server closed an idle client, bytes that trickled, and requests that were sent.
    count: [AtomicU64; 3],
}

impl Attack {
    fn new(address: &str, path: &'static str) -> Result<Attack> {
        Ok(Attack { address: address.parse()?, path, over: AtomicBool::new(false), count: Default::default() })
    }

    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    fn connect(&self) -> Option<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).ok()?;
        stream.set_nonblocking(true).ok()?;
        Some(stream)
    }

    /// Connections that say nothing; one that was closed is opened again.
    fn lie_idle(&self) {
        let mut held: Vec<Option<TcpStream>> = (0..IDLE).map(|_| self.connect()).collect();
        while self.goes_on() {
            for one in &mut held {
                let open = one.as_mut().is_some_and(|stream| {
                    stream.read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
                });
                if !open {
                    self.count[0].fetch_add(1, Ordering::Relaxed);
                    *one = self.connect();
                }
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Heads that come byte by byte and never end.
    fn trickle(&self) {
        let mut held: Vec<(Option<TcpStream>, usize)> = (0..TRICKLING).map(|_| (self.connect(), 0)).collect();
        let head = format!("GET {} HTTP/1.1\r\nx: ", self.path);
        while self.goes_on() {
            for (one, at) in &mut held {
                let byte = head.as_bytes().get(*at).copied().unwrap_or(b'y');
                *at += 1;
                let written = one.as_mut().is_some_and(|stream| stream.write(&[byte]).is_ok());
                self.count[1].fetch_add(1, Ordering::Relaxed);
                if !written {
                    (*one, *at) = (self.connect(), 0);
                }
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Valid requests without pause, of which nobody reads the answers.
    fn read_nothing(&self) {
        let mut held: Vec<Option<TcpStream>> = (0..READING_NOTHING).map(|_| self.connect()).collect();
        let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", self.path);
        while self.goes_on() {
            for one in &mut held {
                let written = one.as_mut().is_some_and(|stream| stream.write(request.as_bytes()).is_ok());
                self.count[2].fetch_add(1, Ordering::Relaxed);
                if !written {
                    *one = self.connect();
                }
            }
            // One thread for all fifty: it never waits for the server, but gives way to it on a small machine.
            std::thread::yield_now();
        }
    }

    /// Attacks while `probes` runs.
    fn during<T>(&self, probes: impl FnOnce() -> Result<T>) -> Result<T> {
        std::thread::scope(|scope| {
            scope.spawn(|| self.lie_idle());
            scope.spawn(|| self.trickle());
            scope.spawn(|| self.read_nothing());
            let begun = || Ok(self.count.iter().all(|count| count.load(Ordering::Relaxed) > 100));
            let outcome = wait_for("the attack is under way", Duration::from_secs(30), begun).and_then(|()| probes());
            self.over.store(true, Ordering::Relaxed);
            outcome
        })
    }
}

/// Fresh connections, as a kubelet makes them; each has to be answered with 200 within `bound`.
fn probe_all(address: &str, path: &str, bound: Duration) -> Result<()> {
    let mut slowest = Duration::ZERO;
    for number in 0..PROBES {
        let began = Instant::now();
        let answer = get(address, path, bound).with_context(|| format!("probe {number}"))?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "probe {number}: {answer}");
        slowest = slowest.max(began.elapsed());
        // Over some seconds, so that clients' times run out and looks begin anew meanwhile.
        std::thread::park_timeout(PAUSE);
    }
    ensure!(slowest <= bound, "the slowest of {PROBES} probes took {slowest:?}");
    Ok(())
}

/// One GET and all that comes back within `patience`.
fn get(address: &str, path: &str, patience: Duration) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address.parse()?, patience)?;
    stream.set_read_timeout(Some(patience))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn health_address(node: &Node) -> String {
    format!("{}:9808", node.setup().address)
}

fn starve(node: &Node, bound: Duration) -> Result<()> {
    let address = health_address(node);
    // The metrics of the same process are attacked as well: they have places of their own.
    let attack = Attack::new(&address, "/healthz")?;
    let beside = Attack::new(&format!("{}:8095", node.setup().address), "/metrics")?;
    beside.during(|| attack.during(|| probe_all(&address, "/healthz", bound)))?;
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

/// Until when the server keeps a connection on which `sent` was written; at most `patience`.
fn kept(stream: &mut TcpStream, sent: &[u8], patience: Duration) -> Result<Duration> {
    let began = Instant::now();
    stream.write_all(sent)?;
    stream.set_read_timeout(Some(patience))?;
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => Ok(began.elapsed()),
        // Closed while something lay unread.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(began.elapsed()),
        Err(error) => Err(error).with_context(|| format!("after {:?}", began.elapsed())),
    }
}

fn a_request_head_must_arrive_within_a_second() -> Result<()> {
    let node = harness().node()?;
    for port in [8095, 9808] {
        for sent in ["", "GET /healthz HTTP/1.1\r\n"] {
            let mut stream = TcpStream::connect((node.setup().address.as_str(), port))?;
            let kept = kept(&mut stream, sent.as_bytes(), Duration::from_secs(20))?;
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
    // More than there are places.
    let crowd: Vec<TcpStream> = (0..400).map(|_| TcpStream::connect(&address)).collect::<Result<_, _>>()?;
    ensure!(get(&address, "/healthz", PATIENCE)?.starts_with("HTTP/1.1 200 "));
    let open = std::fs::read_dir(format!("/proc/{}/fd", node.id()))?.count();
    ensure!(open <= 256 + 64, "{open} descriptors are open");
    kept(&mut oldest, b"", Duration::from_secs(20))?;
    drop(crowd);
    Ok(())
}

/// How often the process was asked for a sign of life, by a socket in its own socket's place.
fn probes_within_a_second_share_one_check_of_the_socket() -> Result<()> {
    let node = harness().node()?;
    let socket = node.setup().socket();
    std::fs::rename(&socket, socket.with_extension("away"))?;
    let listener = std::os::unix::net::UnixListener::bind(&socket)?;
    listener.set_nonblocking(true)?;
    let address = health_address(&node);
    // Nobody answers there, so that a look takes its three seconds, and its failure counts for all who came meanwhile.
    let answers: Vec<Result<String>> = std::thread::scope(|scope| {
        let asked: Vec<_> =
            (0..50).map(|_| scope.spawn(|| get(&address, "/healthz", Duration::from_secs(20)))).collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for answer in answers {
        let answer = answer?;
        ensure!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("no answer to Probe"), "{answer}");
    }
    let asked = std::iter::from_fn(|| listener.accept().ok()).count();
    // Two, where the machine needed more than the look's time to start the threads.
    ensure!((1..=2).contains(&asked), "the socket was asked {asked} times");
    Ok(())
}

fn frequent_scrapes_get_the_last_rendering() -> Result<()> {
    let node = harness().node()?;
    let first = node.metrics()?;
    for _ in 0..100 {
        ensure!(node.metrics()?.len() == first.len());
    }
    // And afterwards what is new is there again.
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
