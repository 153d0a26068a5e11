use super::*;

fn stanza(name: &str, version: &str, more: &str, content: &str) -> String {
    let sha256 = Digest::of(content).hex();
    format!(
        "Package: {name}\nVersion: {version}\nArchitecture: amd64\n{more}Filename: pool/{name}.deb\nSize: 3\nSHA256: \
         {sha256}\n\n"
    )
}

#[test]
fn names_and_provided_names_are_found_over_all_indices() {
    let main = stanza("b", "1", "Provides: mail-agent (= 2), x,\n y:any\nDepends: a (>= 1),\n c | d\n", "b1")
        + &stanza("a", "1", "Essential: yes\nPriority: required\nMulti-Arch: same\nSource: sa (9)\n", "a1");
    let updates = stanza("a", "2", "Provides: mail-agent, mail-agent (= 3)\n", "a2");
    let catalog =
        Catalog::from_texts(&[("d", "r", 500, &main), ("d", "e", 500, ""), ("d", "u", 100, &updates)])
            .unwrap();
    assert_eq!(catalog.len(), 3);
    let shown = |ids: &[PackageId]| {
        ids.iter()
            .map(|id| format!("{} {}", catalog.get(*id).name, catalog.get(*id).version))
            .collect::<Vec<_>>()
    };
    assert_eq!(shown(catalog.named("a")), ["a 1", "a 2"]);
    assert_eq!(shown(catalog.named("b")), ["b 1"]);
    assert_eq!(shown(catalog.named("")), Vec::<String>::new());
    assert_eq!(shown(catalog.named("zz")), Vec::<String>::new());
    assert_eq!(shown(catalog.providing("mail-agent")), ["b 1", "a 2"]);
    assert_eq!(shown(catalog.providing("y")), ["b 1"]);
    assert_eq!(shown(catalog.providing("a")), Vec::<String>::new());
    assert_eq!(catalog.names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(catalog.iter().map(|(_, record)| record.name).collect::<Vec<_>>(), ["a", "a", "b"]);
    let a = catalog.get(catalog.named("a")[0]);
    assert!(a.essential && a.required && a.multi_arch == MultiArch::Same && a.source == "sa");
    assert_eq!((a.repository, a.suite, a.priority, a.size), ("d", "r", 500, 3));
    assert_eq!((a.path, a.sha256), ("pool/a.deb", Digest::of("a1")));
    let newer = catalog.get(catalog.named("a")[1]);
    assert_eq!((newer.suite, newer.priority, newer.source), ("u", 100, "a"));
    assert_eq!(catalog.get(catalog.named("b")[0]).depends, "a (>= 1), c | d");
}

#[test]
fn duplicates_are_one_unless_the_content_differs() {
    let one = stanza("a", "1", "Provides: p\n", "x");
    let other = stanza("a", "1", "", "y");
    let same = Catalog::from_texts(&[("d", "r", 500, &one), ("d", "u", 500, &one)]).unwrap();
    assert_eq!((same.len(), same.named("a").len(), same.providing("p").len()), (1, 1, 1));
    assert_eq!(same.get(same.named("a")[0]).suite, "r");
    let error = Catalog::from_texts(&[("d", "r", 500, &one), ("d", "u", 500, &other)]).unwrap_err();
    for part in ["`d`", "`a` 1 amd64", "`r`", "`u`", "different content"] {
        assert!(error.message().contains(part), "{error}");
    }
    let twice = format!("{one}{other}");
    assert!(Catalog::from_texts(&[("d", "r", 500, &twice)]).is_err());
    // Two archives may each have their own: the first named is taken.
    let apart = Catalog::from_texts(&[("d", "r", 500, &one), ("v", "r", 500, &other)]).unwrap();
    assert_eq!(apart.len(), 1);
    assert_eq!(apart.get(apart.named("a")[0]).repository, "d");
}
