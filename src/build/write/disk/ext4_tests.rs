use super::*;
use crate::system::files::Root;

fn entry(path: &str, kind: Kind, mode: u32) -> Entry {
    Entry { path: path.into(), kind, mode, uid: 0, gid: 0, modified: 1_700_000_000, xattrs: BTreeMap::new() }
}

#[test]
fn the_script_names_everything_once_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let mut odd = entry("etc/a \"b\"", Kind::File { size: 0 }, 0o4755);
    odd.uid = 70_000;
    odd.xattrs.insert("security.capability".into(), vec![1]);
    let entries = vec![
        entry("etc/z", Kind::Hard { to: "etc/a \"b\"".into() }, 0o4755),
        odd,
        entry("etc", Kind::Directory, 0o755),
        entry("", Kind::Directory, 0o755),
        entry("<2>", Kind::Link { target: "etc".into() }, 0o777),
        entry("null", Kind::Character { device: (1, 3) }, 0o666),
    ];
    let tree = Tree::new(Root::open(directory.path()).unwrap(), entries);
    let attributes = write_attributes(&tree, directory.path()).unwrap();
    let text = String::from_utf8(script(&tree, 5, &attributes).unwrap()).unwrap();
    let text = text.replace(&directory.path().display().to_string(), "DIR");
    let time = "\"mtime\" \"@1700000000\"";
    let expected = format!(
        r#"set_current_time @5
set_inode_field "/" "mode" "040755"
set_inode_field "/" {time}
symlink "<2>" "etc"
set_inode_field "./<2>" "mode" "0120777"
set_inode_field "./<2>" {time}
mkdir "etc"
set_inode_field "./etc" "mode" "040755"
set_inode_field "./etc" {time}
cd "/etc"
write "DIR/etc/a ""b""" "a ""b"""
set_inode_field "./a ""b""" "mode" "0104755"
set_inode_field "./a ""b""" {time}
set_inode_field "./a ""b""" "uid" "70000"
set_inode_field "./a ""b""" "links_count" "2"
ea_set "-f" "DIR/attribute-0" "./a ""b""" "security.capability"
mknod "z" "p"
rm "./z"
ln "/etc/a ""b""" "z"
cd "/"
mknod "null" "c" "1" "3"
set_inode_field "./null" "mode" "020666"
set_inode_field "./null" {time}
"#
    );
    assert_eq!(text, expected);
}

#[test]
fn a_name_with_a_line_break_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let entries = vec![entry("a\nrm /etc", Kind::File { size: 0 }, 0o644)];
    let tree = Tree::new(Root::open(directory.path()).unwrap(), entries);
    let said = script(&tree, 0, &BTreeMap::new()).unwrap_err().to_string();
    assert!(said.contains("has a line break in its name"), "{said}");
}
