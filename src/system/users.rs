//! Users and groups by name and number, from `/etc/passwd` and `/etc/group` (passwd(5), group(5)).

use crate::{
    error::{Error, Result},
    system::files::{Owner, Root},
};

/// Largest `/etc/passwd` or `/etc/group` that is read, in bytes.
const LIMIT: u64 = 16 * 1024 * 1024;

/// One line of `/etc/passwd`, as far as it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// One line of `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Group name.
    pub name: String,
    /// Group id.
    pub gid: u32,
    /// Login names of its further members.
    pub members: Vec<String>,
}

/// The users and groups of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Users {
    /// All users, in the file's order.
    pub users: Vec<User>,
    /// All groups, in the file's order.
    pub groups: Vec<Group>,
}

impl Users {
    /// Reads both files of a host; a missing one is empty (a tree that is not set up yet).
    ///
    /// # Errors
    /// A file is there and cannot be read.
    pub fn read(root: &Root) -> Result<Self> {
        let passwd = root.read_text("/etc/passwd", LIMIT)?.unwrap_or_default();
        let group = root.read_text("/etc/group", LIMIT)?.unwrap_or_default();
        Ok(Self::parse(&passwd, &group))
    }

    /// Users and groups from the text of both files. Lines that are not as passwd(5) and group(5) say
    /// are left out, as the C library does.
    pub fn parse(passwd: &str, group: &str) -> Self {
        Self {
            users: passwd.lines().filter_map(parse_user).collect(),
            groups: group.lines().filter_map(parse_group).collect(),
        }
    }

    /// The user of this login name.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    /// The user of this number.
    pub fn user_by_id(&self, uid: u32) -> Option<&User> {
        self.users.iter().find(|user| user.uid == uid)
    }

    /// The group of this name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// The group of this number.
    pub fn group_by_id(&self, gid: u32) -> Option<&Group> {
        self.groups.iter().find(|group| group.gid == gid)
    }

    /// `USER:GROUP`, `USER` (with its primary group), or numbers in place of names.
    ///
    /// # Errors
    /// A usage error for a name that is not there, and for a lone number without a user of that id.
    pub fn owner(&self, text: &str) -> Result<Owner> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let known = self.user(user).or_else(|| self.user_by_id(number(user)?));
        // `root` is 0 everywhere, also in a tree that has no files yet.
        let root = (user == "root").then_some(0);
        let uid = known.map(|known| known.uid).or_else(|| number(user)).or(root).ok_or_else(|| {
            Error::usage(format!("there is no user `{}`", user.escape_debug()))
                .hint("add it to the host, or write its number")
        })?;
        let gid = match group {
            None => known.map(|known| known.gid).or(root).ok_or_else(|| {
                Error::usage(format!("user `{}` has no known group", user.escape_debug()))
                    .hint(format!("write both: `{uid}:{uid}`"))
            })?,
            Some(group) => {
                let root = (group == "root").then_some(0);
                let known = self.group(group).map(|known| known.gid);
                known.or_else(|| number(group)).or(root).ok_or_else(|| {
                    Error::usage(format!("there is no group `{}`", group.escape_debug()))
                        .hint("add it to the host, or write its number")
                })?
            }
        };
        Ok(Owner { uid, gid })
    }

    /// `USER:GROUP` by name, numbers where there is no name.
    pub fn describe(&self, owner: Owner) -> String {
        let user = self.user_by_id(owner.uid).map_or_else(|| owner.uid.to_string(), |user| user.name.clone());
        let group =
            self.group_by_id(owner.gid).map_or_else(|| owner.gid.to_string(), |group| group.name.clone());
        format!("{user}:{group}")
    }
}

/// An id written as a number. `u32::MAX` is "no change" to chown(2) and no id.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id != u32::MAX)
}

fn parse_user(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, shell] = fields[..] else { return None };
    let (name, home, shell) = (name.to_owned(), home.to_owned(), shell.to_owned());
    (!name.is_empty()).then_some(User { name, uid: number(uid)?, gid: number(gid)?, home, shell })
}

fn parse_group(line: &str) -> Option<Group> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, gid, members] = fields[..] else { return None };
    let members = members.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect();
    (!name.is_empty()).then_some(Group { name: name.to_owned(), gid: number(gid)?, members })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Kind;

    fn sample() -> Users {
        Users::parse(
            "root:x:0:0:root:/root:/bin/bash\n# a remark\nminer:x:1000:1001:,,,:/home/miner:/bin/sh\nbroken:x:one:1::\n",
            "root:x:0:\nminer:x:1001:\ndocker:x:998:miner,operator\nbroken\n",
        )
    }

    #[test]
    fn owners_by_name_and_number() {
        let users = sample();
        for (text, uid, gid) in [
            ("root:root", 0, 0),
            ("root", 0, 0),
            ("miner", 1000, 1001),
            ("miner:docker", 1000, 998),
            ("1000", 1000, 1001),
            ("65534:65534", 65534, 65534),
            ("miner:7", 1000, 7),
        ] {
            assert_eq!(users.owner(text).unwrap(), Owner { uid, gid }, "{text}");
        }
        for bad in
            ["", ":", "nobody:root", "root:nobody", "4711", "-1:0", "4294967295:0", "+1:0", "root:", ":root"]
        {
            assert_eq!(users.owner(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
        }
    }

    #[test]
    fn an_empty_tree_still_has_root() {
        assert_eq!(Users::default().owner("root:root").unwrap(), Owner::ROOT);
        assert_eq!(Users::default().owner("root").unwrap(), Owner::ROOT);
    }

    #[test]
    fn names_members_and_broken_lines() {
        let users = sample();
        assert_eq!(users.users.len(), 2);
        assert_eq!(users.groups.len(), 3);
        assert_eq!(users.group("docker").unwrap().members, ["miner", "operator"]);
        assert_eq!(users.describe(Owner { uid: 1000, gid: 998 }), "miner:docker");
        assert_eq!(users.describe(Owner { uid: 5, gid: 6 }), "5:6");
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_panic(passwd in "[a-z0-9:\n,]{0,80}", group in ".{0,80}", owner in ".{0,20}") {
            let users = Users::parse(&passwd, &group);
            if let Ok(owner) = users.owner(&owner) {
                prop_assert!(owner.uid != u32::MAX && owner.gid != u32::MAX);
            }
        }
    }
}
