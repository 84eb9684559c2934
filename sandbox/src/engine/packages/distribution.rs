//! The distribution of this machine or of an image: its name, and the command by which it installs
//! a package.

use std::path::Path;

use crate::engine::image::Image;
use crate::machine::os_release::{field, read};

/// Returns a name for the distribution, its release and the architecture, which a tree is made for:
/// those of an image, or of this machine.
pub(super) fn directory(image: Option<&Image>) -> String {
    let of_image = |image: &Image| {
        let files = ["/etc/os-release", "/usr/lib/os-release"].map(Path::new);
        let contents = files.iter().find_map(|file| image.read(file).ok()).unwrap_or_default();
        String::from_utf8_lossy(&contents).into_owned()
    };
    name(&image.map_or_else(|| read(Path::new("/")), of_image), std::env::consts::ARCH)
}

fn name(os_release: &str, architecture: &str) -> String {
    let version = ["VERSION_ID", "VERSION_CODENAME"].map(|name| field(os_release, name));
    let version = version.into_iter().find(|version| !version.is_empty()).unwrap_or("rolling");
    // The default of os-release(5), for images without the file.
    let id = Some(field(os_release, "ID")).filter(|id| !id.is_empty()).unwrap_or("linux");
    let name = format!("{id}-{version}-{architecture}");
    name.replace(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)), "_")
}

/// The names of a server's package.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InstallCommands {
    pub(crate) debian: &'static str,
    pub(crate) red_hat: &'static str,
    pub(crate) arch: &'static str,
    pub(crate) alpine: &'static str,
    pub(crate) suse: &'static str,
}

impl InstallCommands {
    /// Returns the command that installs the package on this machine's distribution, where that is
    /// known.
    pub(crate) fn here(&self) -> Option<String> {
        self.on(&read(Path::new("/")))
    }

    fn on(&self, os_release: &str) -> Option<String> {
        let ids = format!("{} {}", field(os_release, "ID"), field(os_release, "ID_LIKE"));
        ids.split_whitespace().find_map(|id| match id {
            "debian" | "ubuntu" => Some(format!("sudo apt-get install {}", self.debian)),
            "fedora" | "rhel" | "centos" => Some(format!("sudo dnf install {}", self.red_hat)),
            "arch" => Some(format!("sudo pacman -S {}", self.arch)),
            "alpine" => Some(format!("sudo apk add {}", self.alpine)),
            id if id.contains("suse") => Some(format!("sudo zypper install {}", self.suse)),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_the_distributions() {
        let commands = InstallCommands { debian: "d", red_hat: "r", arch: "a", alpine: "l", suse: "s" };
        for (os_release, command) in [
            ("ID=debian\nVERSION_ID=\"12\"", "sudo apt-get install d"),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"", "sudo apt-get install d"),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"", "sudo dnf install r"),
            ("NAME=Arch\nID=arch", "sudo pacman -S a"),
            ("ID='alpine'", "sudo apk add l"),
            ("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"", "sudo zypper install s"),
        ] {
            assert_eq!(commands.on(os_release).as_deref(), Some(command));
        }
        assert_eq!(commands.on(""), None);
        assert_eq!(commands.on("ID=slackware"), None);
    }

    #[test]
    fn distributions_are_recognised() {
        assert_eq!(name("ID=debian\nVERSION_ID=\"12\"\n", "x86_64"), "debian-12-x86_64");
        assert_eq!(name("VERSION_CODENAME=forky\nID=debian\n", "aarch64"), "debian-forky-aarch64");
        assert_eq!(name("ID=a/b\n", "x86_64"), "a_b-rolling-x86_64");
        assert_eq!(name("", "x86_64"), "linux-rolling-x86_64");
    }
}
