//! A webhook behind TLS with a certificate of a private CA. It works once that CA is trusted; before, one line reports the refusal.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::mirror::{Mirror, Setup};
use crate::support::{LIMIT, TestDir, skipped};

/// Runs openssl in `dir`; false if it is not installed.
fn openssl(dir: &TestDir, words: &str) -> bool {
    let mut command = Command::new("openssl");
    match command.args(words.split(' ')).current_dir(dir.path()).output() {
        Err(_) => false,
        Ok(output) => {
            assert!(
                output.status.success(),
                "{words}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            true
        }
    }
}

/// Two CAs, `own.pem` and `other.pem`, and a certificate for `localhost` that the first has signed.
fn make_certificates(dir: &TestDir) -> bool {
    const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    dir.file("names", "subjectAltName=DNS:localhost\n");
    ["own", "other"].iter().all(|ca| {
        openssl(
            dir,
            &format!("req -x509 {KEY} -days 2 -subj /CN={ca} -keyout {ca}.key -out {ca}.pem"),
        )
    }) && openssl(dir, &format!("req -new {KEY} -subj /CN=localhost -keyout key.pem -out request"))
        && openssl(
            dir,
            "x509 -req -in request -CA own.pem -CAkey own.key -CAcreateserial -days 2 -extfile names -out cert.pem",
        )
}

/// Serves two connections; the channel receives what a client sends once it trusts the certificate.
fn serve(dir: &Path) -> (u16, Receiver<String>) {
    let chain = vec![CertificateDer::from_pem_file(dir.join("cert.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    let config = Arc::new(config.unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heard, hears) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            // A client that does not trust the certificate ends the connection.
            _ = answer(stream.unwrap(), &config, &heard);
        }
    });
    (port, hears)
}

fn answer(
    stream: TcpStream,
    config: &Arc<ServerConfig>,
    heard: &Sender<String>,
) -> std::io::Result<()> {
    let tls = ServerConnection::new(Arc::clone(config)).unwrap();
    let mut stream = BufReader::new(StreamOwned::new(tls, stream));
    let (mut head, mut length) = (String::new(), 0);
    while stream.read_line(&mut head)? > 2 {
        let last = head.lines().last().unwrap_or_default().to_ascii_lowercase();
        if let Some(value) = last.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    heard.send(head + &String::from_utf8_lossy(&body)).unwrap();
    let mut stream = stream.into_inner();
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")?;
    stream.conn.send_close_notify();
    stream.flush()
}

#[test]
fn a_webhook_with_a_ca_of_ones_own_works_when_that_ca_is_trusted_and_says_so_when_not() {
    let dir = TestDir::new();
    if !make_certificates(&dir) {
        return skipped("openssl is not installed");
    }
    let (port, heard) = serve(dir.path());
    let sersync = format!(
        "<alert start=\"true\" webhook=\"https://localhost:{port}/t0ken\" template=\"slack\"/>"
    );
    let remotes = vec![("127.0.0.1".to_owned(), "data".to_owned())];
    let mirror = Mirror::prepare(&Setup { sersync, remotes, ..Setup::plain() });
    let test_alert = |trusted: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sersync2"));
        command.args(["test-alert", "-o"]).arg(&mirror.config).env_remove("SSL_CERT_DIR");
        let output = command.env("SSL_CERT_FILE", dir.join(trusted)).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    let (code, said) = test_alert("other.pem");
    let refusal = format!(
        "failed  webhook https://localhost:{port}/…: the certificate of https://localhost:{port}/… comes from a CA that this \
         machine does not trust: add that CA to the system's certificates, or name its file with SSL_CERT_FILE in the environment \
         of sersync2\n"
    );
    assert_eq!((code, said), (Some(1), refusal));
    let (code, said) = test_alert("own.pem");
    assert_eq!(
        (code, said.as_str()),
        (Some(0), format!("ok      webhook https://localhost:{port}/…\n").as_str())
    );
    let posted = heard.recv_timeout(LIMIT).unwrap();
    assert!(
        posted.starts_with("POST /t0ken HTTP/1.1") && posted.contains("this is a test"),
        "{posted}"
    );
}
