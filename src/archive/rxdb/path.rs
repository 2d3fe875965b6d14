//! Ids as paths, as they are for the plugin.

/// The folder of an id, relative to the plugin's directory; `None` if the plugin would write outside
/// its directory.
pub(super) fn folder_of(id: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in id.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop()?,
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::folder::beneath;
    use crate::tree::beneath::Folder;

    #[test]
    fn an_id_is_a_path_as_it_is_for_the_plugin() {
        for (id, folder) in [
            ("a", Some("a")),
            ("a/b", Some("a/b")),
            ("a//./b/", Some("a/b")),
            ("a/../b", Some("b")),
            ("%41 ", Some("%41 ")),
            (".", None),
            ("", None),
            ("a/..", None),
            ("../a", None),
            ("a/../../a", None),
        ] {
            assert_eq!(folder_of(id).as_deref(), folder, "{id}");
        }
    }

    #[test]
    fn no_path_leads_out_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("root/a/b")).unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("root/link")).unwrap();
        let root = Folder::open_path(&dir.path().join("root")).unwrap();
        assert!(beneath(&root, "a/b").unwrap().is_some());
        for path in ["../root", "a/../a", "/a", "a/./b", "", "none/b"] {
            assert!(beneath(&root, path).unwrap().is_none(), "{path}");
        }
        assert!(beneath(&root, "link/b").is_err());
    }
}
