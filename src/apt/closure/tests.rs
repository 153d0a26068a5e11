use super::*;
use crate::digest::Digest;

/// An index from lines such as `name 1.0 all | Depends: a ¦ b, c | Essential: yes`; the architecture may be left out, and
/// `¦` stands for the `|` of alternatives.
fn index(lines: &str) -> String {
    let stanza = |line: &str| {
        let mut parts = line.split('|').map(str::trim);
        let mut words = parts.next().unwrap_or_default().split(' ');
        let (name, version) = (words.next().unwrap(), words.next().unwrap());
        let architecture = words.next().unwrap_or("amd64");
        let fields: String = parts.map(|field| format!("{field}\n").replace('¦', "|")).collect();
        format!(
            "Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nFilename: pool/{name}_{version}.deb\n\
             Size: 1\nSHA256: {}\n{fields}",
            Digest::of(line).hex()
        )
    };
    lines.lines().map(str::trim).filter(|line| !line.is_empty()).map(stanza).collect::<Vec<_>>().join("\n")
}

/// A root: `name`, `name:i386`, `name=1.0`.
fn root(text: &str) -> Root {
    let (name, version) = text.split_once('=').map_or((text, None), |(name, version)| (name, Some(version)));
    let (name, architecture) = name.split_once(':').map_or((name, None), |(name, a)| (name, Some(a)));
    Root {
        name: name.to_owned(),
        architecture: architecture.map(str::to_owned),
        constraint: version.map(|version| Constraint::Exact(version.to_owned())),
        because: "packages".to_owned(),
        shown: text.to_owned(),
    }
}

fn catalog(suites: &[(u16, &str)]) -> Catalog {
    let texts: Vec<String> = suites.iter().map(|(_, lines)| index(lines)).collect();
    let names = ["one", "two", "three"];
    let parts: Vec<(&str, &str, u16, &str)> = suites
        .iter()
        .zip(&texts)
        .zip(names)
        .map(|(((priority, _), text), suite)| ("archive", suite, *priority, text.as_str()))
        .collect();
    Catalog::from_texts(&parts).unwrap()
}

fn ask<'a>(catalog: &'a Catalog, roots: &'a [Root]) -> Ask<'a> {
    Ask { catalog, architecture: "amd64", roots, preferred: &[], recommends: false }
}

/// `name=version` of each package of a closure; `name:architecture=version` of foreign ones.
fn shown(catalog: &Catalog, closure: &Closure) -> String {
    let one = |chosen: &Chosen| {
        let record = catalog.get(chosen.id);
        match record.architecture {
            "amd64" | "all" => format!("{}={}", record.name, record.version),
            other => format!("{}:{other}={}", record.name, record.version),
        }
    };
    closure.packages.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// The closure of these roots, or the lines of its explanation.
fn solved(suites: &[(u16, &str)], roots: &str) -> String {
    let catalog = catalog(suites);
    let roots: Vec<Root> = roots.split_whitespace().map(root).collect();
    match solve(&ask(&catalog, &roots)) {
        Ok(closure) => shown(&catalog, &closure),
        Err(unsatisfied) => unsatisfied.to_string(),
    }
}

#[test]
fn closures_of_one_index() {
    for (what, lines, roots, want) in [
        (
            "essential, required and apt are always there",
            "a 1\ne 1 | Essential: yes | Pre-Depends: l\nr 1 | Priority: required\nl 1\napt 2 | Depends: l",
            "",
            "apt=2 e=1 l=1 r=1",
        ),
        ("the newest version", "a 1:0\na 9\na 1:0~rc", "a", "a=1:0"),
        ("a version that is asked for", "a 1\na 2 | Depends: b\nb 1", "a=1", "a=1"),
        ("the first alternative", "a 1 | Depends: b ¦ c\nb 1\nc 1", "a", "a=1 b=1"),
        ("an alternative where the first is missing", "a 1 | Depends: x ¦ c\nc 1", "a", "a=1 c=1"),
        (
            "an alternative where the first conflicts",
            "a 1 | Depends: b ¦ c | Conflicts: b\nb 1\nc 1",
            "a",
            "a=1 c=1",
        ),
        (
            "an alternative that another needs anyway",
            "a 1 | Depends: b ¦ c | Breaks: b\nd 1 | Depends: c\nb 1\nc 1",
            "a d",
            "a=1 c=1 d=1",
        ),
        ("a version bound", "a 1 | Depends: b (<< 3)\nb 1\nb 2\nb 3", "a", "a=1 b=2"),
        (
            "a virtual package by name",
            "a 1 | Depends: mail\nz 1 | Provides: mail\ny 1 | Provides: mail",
            "a",
            "a=1 y=1",
        ),
        (
            "a real package before who provides it",
            "a 1 | Depends: mail\nmail 1\ny 1 | Provides: mail",
            "a",
            "a=1 mail=1",
        ),
        ("a virtual package as a root", "y 1 | Provides: mail", "mail", "y=1"),
        (
            "a provided version",
            "a 1 | Depends: v (>= 2)\nx 1 | Provides: v (= 1)\ny 1 | Provides: v (= 2)\nz 1 | Provides: v",
            "a",
            "a=1 y=1",
        ),
        (
            "conflicts with what provides the same",
            "a 1 | Provides: mail | Conflicts: mail\nb 1 | Provides: mail",
            "a",
            "a=1",
        ),
        (
            "an older version that nothing breaks",
            "a 1 | Depends: b, c\nb 1\nb 2 | Breaks: c\nc 1",
            "a",
            "a=1 b=1 c=1",
        ),
        ("a cycle", "a 1 | Depends: b\nb 1 | Depends: c\nc 1 | Depends: a", "a", "a=1 b=1 c=1"),
        ("a package that needs itself", "a 1 | Depends: a", "a", "a=1"),
        ("packages for all architectures", "a 1 all | Depends: b\nb 1", "a", "a=1 b=1"),
        ("recommended packages are left out", "a 1 | Recommends: b\nb 1", "a", "a=1"),
        ("a relation for another architecture", "a 1 | Depends: b [i386], c\nc 1", "a", "a=1 c=1"),
    ] {
        assert_eq!(solved(&[(500, lines)], roots).as_str(), want, "{what}");
    }
}

#[test]
fn versions_of_several_suites() {
    for (what, suites, roots, want) in [
        ("the newest of suites alike", [(500, "a 1"), (500, "a 2")].as_slice(), "a", "a=2"),
        ("backports only where asked for", &[(500, "a 1"), (100, "a 2")], "a", "a=1"),
        ("backports by version", &[(500, "a 1"), (100, "a 2")], "a=2", "a=2"),
        ("backports of a name that is nowhere else", &[(500, "b 1"), (100, "a 2")], "a", "a=2"),
        (
            "backports where nothing else will do",
            &[(500, "a 1 | Depends: b (>= 2)\nb 1"), (100, "b 2")],
            "a",
            "a=1 b=2",
        ),
        ("a higher priority before a newer version", &[(990, "a 1"), (500, "a 2")], "a", "a=1"),
        ("the same package in two suites", &[(500, "a 1"), (500, "a 1")], "a", "a=1"),
    ] {
        assert_eq!(solved(suites, roots), want, "{what}");
    }
}

#[test]
fn several_architectures() {
    let lines = "\
        tool 1 i386 | Depends: lib, data, helper\n\
        lib 1 | Multi-Arch: same\nlib 1 i386 | Multi-Arch: same\n\
        data 1 all | Multi-Arch: foreign\n\
        helper 1 | Multi-Arch: foreign\n\
        plain 1\nplain 1 i386\n\
        skewed 2 | Multi-Arch: same\nskewed 1 i386 | Multi-Arch: same\n\
        perl 1 | Multi-Arch: allowed\nneeds 1 i386 | Depends: perl:any";
    for (what, roots, want) in [
        ("own architecture, and what serves all", "tool:i386", "data=1 helper=1 lib:i386=1 tool:i386=1"),
        ("side by side", "tool:i386 lib", "data=1 helper=1 lib=1 lib:i386=1 tool:i386=1"),
        ("any architecture where that is allowed", "needs:i386", "needs:i386=1 perl=1"),
    ] {
        assert_eq!(solved(&[(500, lines)], roots), want, "{what}");
    }
    for roots in ["plain plain:i386", "skewed skewed:i386"] {
        let said = solved(&[(500, lines)], roots);
        assert!(said.contains("together cannot be installed"), "{roots}: {said}");
    }
}

#[test]
fn recommended_packages_where_they_can_be_had() {
    let lines = "a 1 | Recommends: b, missing, c\nb 1 | Recommends: d\nc 1 | Conflicts: a\nd 1";
    let catalog = catalog(&[(500, lines)]);
    let roots = [root("a")];
    let closure = solve(&Ask { recommends: true, ..ask(&catalog, &roots) }).unwrap();
    assert_eq!(shown(&catalog, &closure), "a=1 b=1 d=1");
    assert_eq!(closure.packages[0].depends, ["b"]);
}

#[test]
fn what_is_locked_stays_where_it_can() {
    let lines = "a 1 | Depends: b\na 2 | Depends: b\nb 1\nb 2\nv 1 | Provides: m\nw 1 | Provides: m\nn 1 | Depends: m";
    let catalog = catalog(&[(500, lines)]);
    let locked = |name: &str, version: &str| Preferred {
        name: name.to_owned(),
        architecture: "amd64".to_owned(),
        version: version.to_owned(),
    };
    for (preferred, roots, want, vanished) in [
        (vec![locked("a", "1"), locked("b", "1")], "a", "a=1 b=1", vec![]),
        (vec![locked("b", "1")], "a", "a=2 b=1", vec![]),
        (vec![locked("a", "1")], "a=2", "a=2 b=2", vec![]),
        (vec![locked("a", "0"), locked("gone", "3")], "a", "a=2 b=2", vec!["a=0", "gone=3"]),
        (vec![locked("w", "1")], "n", "n=1 w=1", vec![]),
    ] {
        let roots: Vec<Root> = roots.split(' ').map(root).collect();
        let closure = solve(&Ask { preferred: &preferred, ..ask(&catalog, &roots) }).unwrap();
        assert_eq!(shown(&catalog, &closure), want);
        assert_eq!(closure.vanished, vanished);
    }
}

#[test]
fn constraints_of_roots() {
    for (constraint, admitted) in [
        (Constraint::Exact("550.163.01-2".to_owned()), vec!["550.163.01-2"]),
        (Constraint::Upstream("550.163.01".to_owned()), vec!["550.163.01-2", "1:550.163.01-9~bpo1"]),
        (Constraint::Branch("550".to_owned()), vec!["550.163.01-2", "550.54.14-1", "1:550.163.01-9~bpo1"]),
        (
            Constraint::NotLater("550.163.01-2".to_owned()),
            vec!["550.163.01-2", "550.54.14-1", "535.261.03-1"],
        ),
    ] {
        let all = ["550.163.01-2", "550.54.14-1", "1:550.163.01-9~bpo1", "5501-1", "535.261.03-1"];
        let is: Vec<&str> = all.into_iter().filter(|version| constraint.admits(version)).collect();
        let expected: Vec<&str> = all.into_iter().filter(|version| admitted.contains(version)).collect();
        assert_eq!(is, expected, "{constraint:?}");
    }
}

#[test]
fn reasons_of_each_package() {
    let lines = "e 1 | Essential: yes\na 1 | Depends: v, e | Pre-Depends: l\nb 1 | Depends: l\nl 1\np 1 | Provides: v\napt 1";
    let catalog = catalog(&[(500, lines)]);
    let mut roots = vec![root("a"), root("b"), root("a")];
    roots[2].because = "driver".to_owned();
    let closure = solve(&ask(&catalog, &roots)).unwrap();
    let reasons: Vec<String> = closure
        .packages
        .iter()
        .map(|chosen| {
            let name = catalog.get(chosen.id).name;
            format!("{name} [{}] [{}]", chosen.depends.join(" "), chosen.wanted_by.join(" "))
        })
        .collect();
    assert_eq!(
        reasons,
        [
            "a [e l p] [driver packages]",
            "apt [] [apt]",
            "b [l] [packages]",
            "e [] [essential]",
            "l [] []",
            "p [] []"
        ]
    );
    assert_eq!(solve(&ask(&catalog, &roots)).unwrap(), closure, "the same for the same question");
}

#[test]
fn what_cannot_be_had_is_explained() {
    for (what, lines, roots, want) in [
        (
            "an unknown name",
            "openssh-server 1",
            "opensh-server",
            vec!["`opensh-server` cannot be installed", "no archive has `opensh-server`"],
        ),
        (
            "an unknown version",
            "a 1\na 2",
            "a=3",
            vec!["`a=3` cannot be installed", "the archives have `a` 1 (one), 2 (one)"],
        ),
        (
            "a missing dependency, as a chain",
            "a 1 | Depends: b\nb 1 | Depends: c (>= 2)\nc 1",
            "a",
            vec![
                "`a` cannot be installed",
                "`a` 1 needs `b`",
                "`b` 1 needs `c (>= 2)`",
                "the archives have `c` 1 (one)",
            ],
        ),
        (
            "a virtual package without the version",
            "a 1 | Depends: v (>= 2)\nx 1 | Provides: v (= 1)",
            "a",
            vec![
                "`a` 1 needs `v (>= 2)`",
                "`v` is a virtual package: the archives have `x` 1, which provides it as `v (= 1)`",
            ],
        ),
        (
            "two that rule one another out",
            "a 1 | Depends: b\nb 1 | Conflicts: c\nc 1\nd 1 | Depends: c\nz 1",
            "a z d",
            vec!["`a` and `d` together cannot be installed", "`b` 1"],
        ),
        (
            "a field that cannot be read",
            "a 1 | Depends: b (>>> 1)",
            "a",
            vec!["`a` cannot be installed", "reading `Depends` of `a` 1 in suite `one` of `archive`"],
        ),
        (
            "a base that cannot be had",
            "e 1 | Essential: yes | Depends: x\na 1",
            "a",
            vec!["what every host of the release has cannot be installed", "no archive has `x`"],
        ),
    ] {
        let said = solved(&[(500, lines)], roots);
        for line in want {
            assert!(said.contains(line), "{what}: no {line:?} in\n{said}");
        }
    }
}

#[test]
fn explanations_become_errors() {
    let text = "openssh-server 1\na 1 | Depends: b\nb 1 | Depends: c\nd 1 | Conflicts: e\ne 1";
    let catalog = catalog(&[(500, text)]);
    let error = |name: &str| {
        let roots = [root(name)];
        crate::error::Error::from(solve(&ask(&catalog, &roots)).unwrap_err())
    };
    let unknown = error("opensh-server");
    assert_eq!(unknown.kind(), crate::error::Kind::Usage);
    assert_eq!(unknown.hints(), ["the archives have `openssh-server`"]);
    let missing = error("a");
    assert_eq!(missing.kind(), crate::error::Kind::Usage);
    assert_eq!(missing.causes(), ["`a` 1 needs `b`", "`b` 1 needs `c`", "no archive has `c`"]);
    let together = crate::error::Error::from(solve(&ask(&catalog, &[root("d"), root("e")])).unwrap_err());
    assert_eq!(together.kind(), crate::error::Kind::Usage);
    assert!(together.hints()[0].contains("ask for something else"), "{together:?}");
    // What no profile can mend is no fault of the profile.
    let broken = self::catalog(&[(500, "base 1 | Essential: yes | Depends: x")]);
    let base = crate::error::Error::from(solve(&ask(&broken, &[])).unwrap_err());
    assert_eq!(base.kind(), crate::error::Kind::Failed);
    assert!(base.hints()[0].contains("--mirror URL"), "{base:?}");
}
