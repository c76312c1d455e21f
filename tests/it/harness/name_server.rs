//! A name server for names that are not in the hosts file (RFC 1035 §4.1.1).

/// Answers queries with NXDOMAIN, with SERVFAIL for names that begin with `servfail`, and not at
/// all for names that begin with `silent`.
pub(super) fn start() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:53").unwrap();
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut query) {
            if length >= 12 {
                let begins = |word: &[u8]| query[..length].get(13..).is_some_and(|name| name.starts_with(word));
                if begins(b"silent") {
                    continue;
                }
                let fails = begins(b"servfail");
                (query[2], query[3]) = (0x81, if fails { 0x82 } else { 0x83 });
                // A client that is gone needs no answer.
                let _ = socket.send_to(&query[..length], client);
            }
        }
    });
}
