use std::io::{self, Read, Write as _};

use proptest::prelude::*;

use super::*;
use crate::error::Kind;

const CONTROL: &str = "Package: tiny\nVersion: 1:2.0-3~a\nArchitecture: amd64\nMaintainer: Näme <n@example>\n\
                       Installed-Size: 12\nDescription: short\n long\n .\n more\n";

fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        writeln!(out, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, "100644", bytes.len()).unwrap();
        out.extend_from_slice(bytes);
        if bytes.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

/// One raw tar entry: type, name, link target, contents; names longer than their field are cut.
fn entry(kind: u8, name: &[u8], target: &[u8], contents: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    let gnu = header.as_gnu_mut().unwrap();
    let name = &name[..name.len().min(100)];
    gnu.name[..name.len()].copy_from_slice(name);
    gnu.linkname[..target.len()].copy_from_slice(target);
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(contents.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    let mut out = header.as_bytes().to_vec();
    out.extend_from_slice(contents);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut out = entries.concat();
    out.resize(out.len() + 1024, 0);
    out
}

fn file(name: &str, contents: &[u8]) -> Vec<u8> {
    entry(b'0', name.as_bytes(), b"", contents)
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    liblzma::read::XzEncoder::new(bytes, 1).read_to_end(&mut out).unwrap();
    out
}

fn zst(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn control_tar() -> Vec<u8> {
    tar(&[entry(b'5', b"./", b"", b""), file("./control", CONTROL.as_bytes())])
}

fn deb_of(data: &[Vec<u8>]) -> Vec<u8> {
    ar(&[
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", &xz(&control_tar())),
        ("data.tar.xz", &xz(&tar(data))),
    ])
}

fn read(deb: &[u8]) -> Result<DebFacts> {
    inspect(deb, &Limits::default())
}

#[track_caller]
fn refusal(deb: &[u8]) -> String {
    let error = read(deb).expect_err("refused");
    assert_eq!(error.kind(), Kind::Failed);
    assert!(!error.hints().is_empty(), "{error}: has a hint");
    error.to_string()
}

#[track_caller]
fn refuses(deb: &[u8], words: &str) {
    let message = refusal(deb);
    assert!(message.contains(words), "`{message}` has `{words}`");
}

fn plain_data() -> Vec<Vec<u8>> {
    vec![
        entry(b'5', b"./", b"", b""),
        entry(b'5', b"./usr/", b"", b""),
        entry(b'5', b"./usr/bin/", b"", b""),
        file("./usr/bin/tiny", b"#!/bin/sh\n"),
        entry(b'1', b"./usr/bin/tiny2", b"./usr/bin/tiny", b""),
        entry(b'2', b"./usr/bin/up", b"../share/tiny/x", b""),
        entry(b'2', b"./usr/bin/absolute", b"/etc/alternatives/tiny", b""),
        entry(b'0', b"./usr/not-utf-8-\xff", b"", b"x"),
        entry(b'L', b"././@LongLink", b"", format!("./usr/{}\0", "n".repeat(200)).as_bytes()),
        file("./usr/nnn", b"long"),
        entry(b'K', b"././@LongLink", b"", format!("{}\0", "t".repeat(300)).as_bytes()),
        entry(b'2', b"./usr/longlink", b"t", b""),
    ]
}

type Packer = fn(&[u8]) -> Vec<u8>;

#[test]
fn a_plain_package_is_read_in_every_compression() {
    let (control, data) = (control_tar(), tar(&plain_data()));
    let packers: [(&str, Packer); 4] = [("", <[u8]>::to_vec), (".gz", gz), (".xz", xz), (".zst", zst)];
    for (control_end, pack_control) in packers {
        for (data_end, pack_data) in packers {
            let deb = ar(&[
                ("debian-binary", b"2.0\n"),
                ("_future", b"passed over"),
                (&format!("control.tar{control_end}"), &pack_control(&control)),
                (&format!("data.tar{data_end}"), &pack_data(&data)),
                ("_gpgorigin", b"a signature"),
            ]);
            let facts = read(&deb).unwrap_or_else(|e| panic!("control{control_end}, data{data_end}: {e:?}"));
            assert_eq!(
                facts,
                DebFacts {
                    name: "tiny".to_owned(),
                    version: "1:2.0-3~a".to_owned(),
                    architecture: "amd64".to_owned(),
                    control: CONTROL.to_owned(),
                    conffiles: Vec::new(),
                    installed_size: Some(12),
                    files: 7,
                    unpacked: data.len() as u64,
                }
            );
            assert_eq!(control_stanza(deb.as_slice()).unwrap(), CONTROL);
        }
    }
}

#[test]
fn every_way_to_cut_it_short_is_an_error() {
    let deb = deb_of(&plain_data());
    for end in 0..deb.len() {
        let error = read(&deb[..end]).expect_err("an error");
        assert_eq!(error.kind(), Kind::Failed, "cut at {end}");
    }
    refuses(&deb[..deb.len() - 40], "it is cut short within `data.tar.xz`");
    refuses(b"", "it is empty");
}

#[test]
fn a_failing_file_is_told_from_a_damaged_one() {
    struct Broken<'b>(&'b [u8]);
    impl Read for Broken<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::Error::other("the disk is gone")),
                read => Ok(read),
            }
        }
    }
    let deb = deb_of(&plain_data());
    for end in [0, 30, 70, 140, deb.len() - 40] {
        let error = inspect(Broken(&deb[..end]), &Limits::default()).unwrap_err();
        assert_eq!(error.to_string(), "reading the package failed", "at {end}");
        assert_eq!(error.causes(), ["the disk is gone"]);
    }
}

type Members<'m> = &'m [(&'m str, &'m [u8])];

#[test]
fn what_is_no_package_is_refused() {
    let (control, data) = (xz(&control_tar()), xz(&tar(&plain_data())));
    let (control, data) = (control.as_slice(), data.as_slice());
    let format = ("debian-binary", b"2.0\n".as_slice());
    let newer = ("debian-binary", b"3.0\n".as_slice());
    let cases: &[(Members<'_>, &str)] = &[
        (&[], "it is empty"),
        (&[("control.tar.xz", control), format, ("data.tar.xz", data)], "begins with `control.tar.xz`"),
        (
            &[format, ("data.tar.xz", data), ("control.tar.xz", control)],
            "`data.tar.xz` stands where `control.tar`",
        ),
        (&[format, ("control.tar.xz", control)], "no `data.tar`"),
        (&[format], "no `control.tar`"),
        (&[newer, ("control.tar.xz", control), ("data.tar.xz", data)], "its format is `3.0`"),
        (
            &[format, ("control.tar.xz", control), ("control.tar.gz", control), ("data.tar.xz", data)],
            "`control.tar.gz` stands where `data.tar`",
        ),
        (
            &[format, ("control.tar.xz", control), ("data.tar.xz", data), ("data.tar.gz", data)],
            "second `data.tar.gz`",
        ),
        (&[format, ("control.tar.xz", control), ("extra", b""), ("data.tar.xz", data)], "`extra` stands"),
        (&[format, ("control.tar.xz", control), ("data.tar.bz2", data)], "compressed in a way"),
        (&[format, ("control.tar.xz", control), ("data.tar.gz", data)], "`data.tar.gz` is damaged"),
        (&[format, ("control.tar.xz", control), ("data.tarball", data)], "`data.tarball` stands"),
    ];
    for (members, words) in cases {
        refuses(&ar(members), words);
    }
    refuses(b"\x1f\x8b\x08 a gzip file", "does not begin as an `ar` archive");
    let mut bad_size = deb_of(&plain_data());
    bad_size[8 + 48..8 + 58].copy_from_slice(b"-4        ");
    refuses(&bad_size, "no proper size");
    let mut bad_name = deb_of(&plain_data());
    bad_name[8] = b'\x1b';
    refuses(&bad_name, "named `\\u{1b}ebian-binary`");
    let mut bad_header = deb_of(&plain_data());
    bad_header[8 + 58] = b'x';
    refuses(&bad_header, "no proper header");
}

#[test]
fn hostile_contents_are_refused() {
    let long = format!("./usr/{}\0", "n".repeat(5000));
    let up = "./usr/../../etc/cron.d/x\0";
    let cases: &[(&[Vec<u8>], &str)] = &[
        (&[file("/etc/passwd", b"x")], "path `/etc/passwd`, which leads out"),
        (&[file("../etc/passwd", b"x")], "path `../etc/passwd`"),
        (&[file("./usr/../../etc/passwd", b"x")], "path `./usr/../../etc/passwd`"),
        (&[file("./usr/..", b"x")], "path `./usr/..`"),
        (&[entry(b'5', b"./usr/../", b"", b"")], "path `./usr/../`"),
        (&[file("./a\nb", b"x")], "path `./a\\nb`"),
        (&[entry(b'L', b"x", b"", up.as_bytes()), file("./x", b"x")], "path `./usr/../../etc/cron.d/x`"),
        (&[entry(b'L', b"x", b"", long.as_bytes()), file("./x", b"x")], "path of more than 4096 bytes"),
        (
            &[entry(b'L', b"x", b"", b"a\0"), entry(b'L', b"x", b"", b"b\0"), file("./x", b"x")],
            "two long names for one entry",
        ),
        (&[entry(b'2', b"./a", b"../etc", b"")], "link `./a` to `../etc`, which leads out"),
        (&[entry(b'2', b"./usr/bin/a", b"../../../etc", b"")], "leads out"),
        (&[entry(b'2', b"./usr/a", b"/usr/../../etc", b"")], "leads out"),
        (&[entry(b'2', b"./a", b"", b"")], "leads out"),
        (&[entry(b'1', b"./a", b"/etc/shadow", b"")], "hard link `./a` to `/etc/shadow`"),
        (&[entry(b'1', b"./a", b"../etc/shadow", b"")], "hard link `./a` to `../etc/shadow`"),
        (&[entry(b'1', b"./a", b"./etc/shadow", b"")], "hard link `./a` to `./etc/shadow`"),
        (&[entry(b'2', b"./l", b"x", b""), entry(b'1', b"./a", b"./l", b"")], "hard link `./a` to `./l`"),
        (&[entry(b'2', b"./etc", b"/tmp", b""), file("./etc/passwd", b"x")], "`etc/passwd` below `etc`"),
        (&[entry(b'2', b"./a/b", b"/tmp", b""), file("./a//b/./c/d", b"x")], "`a/b/c/d` below `a/b`"),
        (&[file("./a", b"x"), file("./a/b", b"x")], "`a/b` below `a`"),
        (&[entry(b'2', b"./a", b"/etc/passwd", b""), file("./a", b"x")], "`a` twice"),
        (&[file("./a", b"x"), file("a", b"y")], "`a` twice"),
        (&[entry(b'3', b"./dev/sda", b"", b"")], "`./dev/sda`, a character device"),
        (&[entry(b'4', b"./dev/sda", b"", b"")], "a block device"),
        (&[entry(b'6', b"./run/pipe", b"", b"")], "a FIFO"),
        (&[entry(b'x', b"./pax", b"", b"20 path=/etc/passwd\n"), file("./x", b"x")], "with contents"),
        (&[entry(b'x', b"./pax", b"", b"")], "an extended header"),
        (&[entry(b'S', b"./sparse", b"", b"")], "of an unknown type"),
        (&[entry(b'5', b"./directory", b"", b"hidden")], "with contents, which is no file"),
        (&[file("./", b"x")], "without a name"),
    ];
    for (data, words) in cases {
        let deb = deb_of(data);
        refuses(&deb, words);
        assert_eq!(control_stanza(deb.as_slice()).unwrap(), CONTROL, "the control part is fine");
    }
}

#[test]
fn a_damaged_archive_is_refused() {
    let mut header = file("./a", b"x");
    header[0] = b'?';
    refuses(&deb_of(&[header]), "its `data.tar.xz` is damaged");
    // A file that claims more than the archive holds.
    let mut short = tar(&[file("./a", &[7; 600])]);
    short.truncate(700);
    let members: [(&str, &[u8]); 3] =
        [("debian-binary", b"2.0\n"), ("control.tar.xz", &xz(&control_tar())), ("data.tar.xz", &xz(&short))];
    refuses(&ar(&members), "its `data.tar.xz` is damaged");
    // Bytes of the compressed data changed: xz has a checksum.
    let deb = deb_of(&plain_data());
    let packed = xz(&tar(&plain_data())).len();
    for at in (deb.len() - packed..deb.len() - 4).step_by(7) {
        let mut changed = deb.clone();
        changed[at] ^= 0x55;
        read(&changed).expect_err("refused");
    }
}

#[test]
fn bombs_are_stopped() {
    let zeros = |bytes: u64| -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        let mut header = entry(b'0', b"./zeros", b"", b"");
        let mut old = tar::Header::from_byte_slice(&header).clone();
        old.set_size(bytes);
        old.set_cksum();
        header = old.as_bytes().to_vec();
        encoder.write_all(&header).unwrap();
        io::copy(&mut io::repeat(0).take(bytes), &mut encoder).unwrap();
        encoder.finish().unwrap()
    };
    let deb = |data: &[u8]| {
        ar(&[("debian-binary", b"2.0\n"), ("control.tar.xz", &xz(&control_tar())), ("data.tar.zst", data)])
    };
    let small = deb(&zeros(32 << 20));
    assert_eq!(read(&small).unwrap().files, 1, "32 MiB of zeros are no bomb");
    let bomb = deb(&zeros(256 << 20));
    assert!(bomb.len() < 100_000);
    refuses(&bomb, "which looks like a bomb");
    refuses(&bomb, "400 times");
    let limits = Limits { unpacked: 1 << 20, ..Limits::default() };
    let message = inspect(small.as_slice(), &limits).unwrap_err().to_string();
    assert!(message.contains("more than 1 MiB"), "{message}");
    let limits = Limits { entries: 3, ..Limits::default() };
    let message = inspect(deb_of(&plain_data()).as_slice(), &limits).unwrap_err().to_string();
    assert!(message.contains("more than 3 entries"), "{message}");
    // What follows the end of the tar archive counts too.
    let mut after = tar(&[file("./a", b"x")]);
    after.resize(after.len() + (256 << 20), 0);
    refuses(&deb(&zst(&after)), "400 times");
    // And control.tar is bounded by itself.
    let members: [(&str, &[u8]); 2] = [("debian-binary", b"2.0\n"), ("control.tar.zst", &zeros(128 << 20))];
    refuses(&ar(&members), "more than 64 MiB");
}

#[test]
fn a_decompressor_that_wants_too_much_memory_is_refused() {
    let mut options = liblzma::stream::LzmaOptions::new_preset(1).unwrap();
    options.dict_size(1 << 30);
    let mut filters = liblzma::stream::Filters::new();
    filters.lzma2(&options);
    let stream = liblzma::stream::Stream::new_stream_encoder(&filters, liblzma::stream::Check::Crc64);
    // Without the memory for such an encoder there is nothing to test with.
    let Ok(stream) = stream else { return };
    let mut packed = Vec::new();
    let data = tar(&plain_data());
    liblzma::read::XzEncoder::new_stream(data.as_slice(), stream).read_to_end(&mut packed).unwrap();
    let members: [(&str, &[u8]); 3] =
        [("debian-binary", b"2.0\n"), ("control.tar.xz", &xz(&control_tar())), ("data.tar.xz", &packed)];
    refuses(&ar(&members), "its `data.tar.xz` is damaged");
}

fn with_control(entries: &[Vec<u8>]) -> Vec<u8> {
    let data = xz(&tar(&plain_data()));
    ar(&[("debian-binary", b"2.0\n"), ("control.tar.xz", &xz(&tar(entries))), ("data.tar.xz", &data)])
}

#[test]
fn bad_control_files_are_refused() {
    let good = || file("./control", CONTROL.as_bytes());
    let cases: &[(&[Vec<u8>], &str)] = &[
        (&[file("./md5sums", b"")], "has no `control`"),
        (&[good(), file("./control", CONTROL.as_bytes())], "`control` twice"),
        (&[good(), file("control", CONTROL.as_bytes())], "`control` twice"),
        (&[entry(b'2', b"./control", b"/etc/passwd", b"")], "control file `control` is a link"),
        (&[good(), entry(b'2', b"./postinst", b"/bin/true", b"")], "control file `postinst` is a link"),
        (&[good(), entry(b'3', b"./postinst", b"", b"")], "a character device"),
        (&[good(), file("../postinst", b"")], "leads out"),
        (&[file("./control", &vec![b'x'; 2 << 20])], "larger than 1 MiB"),
        (&[good(), file("./conffiles", b"/etc/a\n/etc/../../b\n")], "`conffiles` names `/etc/../../b`"),
        (&[good(), file("./conffiles", b"etc/a\n")], "`conffiles` names `etc/a`"),
        (&[good(), file("./conffiles", b"/etc/\xff\n")], "`conffiles` is not UTF-8"),
    ];
    for (entries, words) in cases {
        refuses(&with_control(entries), words);
    }
    let texts: &[(&str, &str)] = &[
        ("", "no `Package`"),
        ("Version: 1\nArchitecture: all\n", "no `Package`"),
        ("Package: a-b\nArchitecture: all\n", "no `Version`"),
        ("Package: a-b\nVersion: 1\n", "no `Architecture`"),
        ("Package: ../x\nVersion: 1\nArchitecture: all\n", "`../x` for `Package`"),
        ("Package: a b\nVersion: 1\nArchitecture: all\n", "`a b` for `Package`"),
        ("Package: ab\nVersion: \nArchitecture: all\n", "for `Version`"),
        ("Package: ab\nVersion: 1/2\nArchitecture: all\n", "`1/2` for `Version`"),
        ("Package: ab\nVersion: x:1\nArchitecture: all\n", "`x:1` for `Version`"),
        ("Package: ab\nVersion: 1\nArchitecture: a/b\n", "`a/b` for `Architecture`"),
        ("Package: ab\nVersion: 1\npackage: cd\nArchitecture: all\n", "`package` twice"),
        ("Package: ab\nVersion: 1\nArchitecture: all\n\nPackage: cd\n", "more than one stanza"),
        ("Package: ab\nVersion: 1\nArchitecture: all\nnonsense\n", "a line without a field: `nonsense`"),
        (" Package: ab\n", "begins with a continued line"),
        ("Package: ab\nVersion: 1\x1b[2J\nArchitecture: all\n", "control character"),
    ];
    for (text, words) in texts {
        refuses(&with_control(&[file("./control", text.as_bytes())]), words);
    }
    refuses(&with_control(&[file("./control", b"Package: \xff\n")]), "not UTF-8");
}

#[test]
fn configuration_files_are_listed() {
    let conffiles = b"/etc/tiny.conf\nremove-on-upgrade /etc/old.conf\n/etc/b\n";
    let deb = with_control(&[file("./control", CONTROL.as_bytes()), file("./conffiles", conffiles)]);
    assert_eq!(read(&deb).unwrap().conffiles, ["/etc/tiny.conf", "/etc/b"]);
}

#[test]
fn the_control_part_alone_reads_no_further() {
    struct Counted<'b>(&'b [u8], usize);
    impl Read for &mut Counted<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let read = self.0.read(buffer)?;
            self.1 += read;
            Ok(read)
        }
    }
    let big: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let members: [(&str, &[u8]); 3] = [
        ("debian-binary", b"2.0\n"),
        ("control.tar.zst", &zst(&control_tar())),
        ("data.tar", &tar(&[file("./a", &big)])),
    ];
    let deb = ar(&members);
    let mut counted = Counted(&deb, 0);
    control_stanza(&mut counted).unwrap();
    assert!(counted.1 < 1000, "{} bytes", counted.1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever the bytes are, there is an answer and no panic.
    #[test]
    fn any_change_has_an_answer(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let data = tar(&plain_data());
        let plain: [(&str, &[u8]); 3] =
            [("debian-binary", b"2.0\n"), ("control.tar", &control_tar()), ("data.tar", &data)];
        let mut deb = ar(&plain);
        for (at, byte) in changes {
            let at = at.index(deb.len());
            deb[at] = byte;
        }
        let _ = read(&deb);
        let _ = control_stanza(deb.as_slice());
    }

    /// Paths that are accepted stay inside, however they are written.
    #[test]
    fn accepted_paths_stay_inside(parts in prop::collection::vec("(\\.|\\.\\.||a|b)", 1..6), absolute in any::<bool>()) {
        let path = format!("{}{}", if absolute { "/" } else { "" }, parts.join("/"));
        let inside = !path.starts_with('/') && !parts.iter().any(|part| part == "..")
            && parts.iter().any(|part| !matches!(part.as_str(), "" | "."));
        prop_assert_eq!(read(&deb_of(&[file(&path, b"x")])).is_ok(), inside, "{}", path);
    }
}
