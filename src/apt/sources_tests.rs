use proptest::prelude::*;

use super::*;

fn shown(sources: &[Source]) -> Vec<String> {
    sources
        .iter()
        .map(|Source { uri, suite, components, signed_by }| {
            format!("{uri} {suite} [{}] {signed_by}", components.join(" "))
        })
        .collect()
}

#[test]
fn one_line_forms() {
    let text = "\
# deb http://a.example/debian buster main
deb http://a.example/debian trixie main contrib # the rest
deb-src http://a.example/debian trixie main
  deb [ arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg ] https://b.example/debian-security trixie-security main
deb\t[trusted=yes]\tfile:/srv/mirror ./
deb cdrom:[Debian]/ trixie main
deb mirror+file:/etc/apt/mirrors trixie main
deb [arch=amd64 http://c.example/debian trixie main
deb http://d.example/$(ARCH)/ /
debt http://e.example/ x main
deb http://only.example/
";
    assert_eq!(
        shown(&one_line(text)),
        [
            "http://a.example/debian trixie [main contrib] ",
            "https://b.example/debian-security trixie-security [main] /usr/share/keyrings/debian-archive-keyring.gpg",
            "file:///srv/mirror ./ [] ",
            "http://d.example/amd64/ / [] ",
        ]
    );
}

#[test]
fn deb822_forms() {
    let text = "\
Types: deb
# an old address
URIs: http://a.example/debian
Suites: trixie trixie-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb-src
URIs: http://source.example/debian
Suites: trixie
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: trixie
Components: main

no field at all

Types: deb deb-src
URIs: http://b.example/debian
# http://c.example/debian
 http://d.example/debian
Suites: /
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 xyz
";
    assert_eq!(
        shown(&deb822(text)),
        [
            "http://a.example/debian trixie [main contrib] /usr/share/keyrings/debian-archive-keyring.gpg",
            "http://a.example/debian trixie-updates [main contrib] /usr/share/keyrings/debian-archive-keyring.gpg",
            "http://b.example/debian / [] key",
            "http://d.example/debian / [] key",
        ]
    );
}

#[test]
fn archives_of_the_distribution() {
    let sources = one_line(
        "\
deb http://m.example/debian bookworm main
deb http://m.example/debian/ bookworm-updates main
deb http://m.example/debian bookworm-backports main
deb http://m.example/debian-security bookworm-security main
deb https://vendor.example/linux/debian bookworm stable
deb [signed-by=/etc/apt/keyrings/vendor.gpg] https://vendor.example/debian bookworm main
deb https://vendor.example/deb stable main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://proxy.example/remote-1/ trixie main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://old.example/x/ bullseye/updates main
deb http://u.example/ubuntu noble main universe
deb http://s.example/ubuntu noble-security main universe
",
    );
    let urls = |urls: Vec<Url>| urls.into_iter().map(String::from).collect::<Vec<_>>();
    let debian = bases(&sources, "debian");
    assert_eq!(urls(debian.main), ["http://m.example/debian", "http://proxy.example/remote-1/"]);
    assert_eq!(urls(debian.security), ["http://m.example/debian-security", "http://old.example/x/"]);
    let ubuntu = bases(&sources, "ubuntu");
    assert_eq!(urls(ubuntu.main), ["http://u.example/ubuntu"]);
    assert_eq!(urls(ubuntu.security), ["http://s.example/ubuntu"]);
    assert_eq!(bases(&sources, "plan9"), Bases::default());
}

#[test]
fn proxies_of_apt_conf() {
    let url = |text: &str| Some(text.parse::<Url>().unwrap());
    for (text, http, https) in [
        ("Acquire::http::Proxy \"http://p.example:3128\";", url("http://p.example:3128"), None),
        (
            "// x\nAcquire { http { Proxy \"http://p.example/\"; }; /* ; */ HTTPS::proxy \"http://q.example\"; };",
            url("http://p.example/"),
            url("http://q.example/"),
        ),
        (
            "acquire::https { proxy \"http://p.example\"; Verify-Peer \"false\"; };",
            None,
            url("http://p.example"),
        ),
        ("Acquire::http::Proxy \"http://a.example\";\nAcquire::http::Proxy \"DIRECT\";", None, None),
        ("Acquire::http::Proxy::host.example \"http://a.example\";", None, None),
        ("#Acquire::http::Proxy \"http://a.example\";", None, None),
        ("DPkg::Post-Invoke { \"rm -f /x || true\"; };", None, None),
        ("Acquire::http::Proxy \"http://a.example", None, None),
    ] {
        assert_eq!(proxies(text), Proxies { http, https }, "{text}");
    }
}

#[test]
fn a_directory_of_configuration() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(read(directory.path()).unwrap(), []);
    assert_eq!(read_proxies(directory.path()).unwrap(), Proxies::default());
    let write = |path: &str, text: &str| {
        files::write_output(&directory.path().join(path), text.as_bytes(), 0o644).unwrap();
    };
    files::make_dir(&directory.path().join("sources.list.d")).unwrap();
    files::make_dir(&directory.path().join("apt.conf.d")).unwrap();
    write("sources.list", "deb http://a.example/debian trixie main\n");
    write(
        "sources.list.d/b.sources",
        "Types: deb\nURIs: http://b.example/debian\nSuites: trixie\nComponents: main\n",
    );
    write("sources.list.d/c.list.save", "deb http://c.example/debian trixie main\n");
    write("apt.conf.d/10proxy", "Acquire::http::Proxy \"http://p.example\";");
    write("apt.conf.d/20x.bak", "Acquire::http::Proxy \"http://wrong.example\";");
    let sources = read(directory.path()).unwrap();
    assert_eq!(
        shown(&sources),
        ["http://a.example/debian trixie [main] ", "http://b.example/debian trixie [main] "]
    );
    assert_eq!(read_proxies(directory.path()).unwrap().http.unwrap().as_str(), "http://p.example/");
}

proptest! {
    #[test]
    fn never_panics(text in proptest::collection::vec(any::<u8>(), 0..400)) {
        let text = String::from_utf8_lossy(&text);
        let _ = (one_line(&text), deb822(&text), proxies(&text));
    }

    #[test]
    fn never_panics_on_likely_text(text in "((deb|Types:|URIs:|Suites:|\\[|\\]|=|http://a/é|/|main|::|Acquire|\\{|\\}|;|\"|#|//|/\\*) ?\n?){0,30}") {
        let sources: Vec<Source> = one_line(&text).into_iter().chain(deb822(&text)).collect();
        let _ = (bases(&sources, "debian"), proxies(&text));
    }
}
