//! TLS certificates, made by the `openssl` program when a test needs them.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::process::run;

/// A key and a certificate for `127.0.0.1` and `localhost`.
pub struct Certificate {
    dir: TempDir,
}

impl Certificate {
    /// One signed by an authority of its own; trusting [`Self::authority`] makes it good.
    pub fn signed() -> Self {
        let this = Self { dir: TempDir::new().expect("a folder for certificates") };
        let (ca_key, ca, key, certificate) = (this.path("ca.key"), this.authority(), this.key(), this.chain());
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        let new = |more: &[&str]| {
            let mut arguments = vec!["req", "-x509"];
            arguments.extend(curve);
            arguments.extend(more);
            run("openssl", &arguments);
        };
        let (ca_key, ca) = (ca_key.to_str().expect("UTF-8"), ca.to_str().expect("UTF-8"));
        new(&["-subj", "/CN=lenscast test authority", "-keyout", ca_key, "-out", ca]);
        new(&[
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1,DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-CA",
            ca,
            "-CAkey",
            ca_key,
            "-keyout",
            key.to_str().expect("UTF-8"),
            "-out",
            certificate.to_str().expect("UTF-8"),
        ]);
        this
    }

    /// One that nobody signed but itself.
    pub fn self_signed() -> Self {
        let this = Self { dir: TempDir::new().expect("a folder for certificates") };
        run(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=IP:127.0.0.1,DNS:localhost",
                "-keyout",
                this.key().to_str().expect("UTF-8"),
                "-out",
                this.chain().to_str().expect("UTF-8"),
            ],
        );
        fs::copy(this.chain(), this.authority()).expect("a copy of the certificate");
        this
    }

    /// The private key, PEM.
    pub fn key(&self) -> PathBuf {
        self.path("server.key")
    }

    /// The server's certificate, PEM.
    pub fn chain(&self) -> PathBuf {
        self.path("server.pem")
    }

    /// Whom to trust for it to be good, PEM.
    pub fn authority(&self) -> PathBuf {
        self.path("authority.pem")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}
