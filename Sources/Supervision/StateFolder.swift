import Glibc

/// Where platforms keep their data unless `--data-dir` names another folder. apusd chooses by these, and `apus` looks
/// there.
package enum StateFolder {
    /// The data directory of `apus.service`.
    package static let ofService = "/var/lib/apus"

    /// What systemd made for the unit this process belongs to (`StateDirectory=`), the first of several; nil outside of
    /// one.
    package static var ofUnit: String? { variable("STATE_DIRECTORY")?.split(separator: ":").first.map(String.init) }

    /// `$XDG_STATE_HOME/apus`, else `$HOME/.local/state/apus`; nil where neither is set.
    package static var ofUser: String? {
        variable("XDG_STATE_HOME").map { "\($0)/apus" } ?? variable("HOME").map { "\($0)/.local/state/apus" }
    }

    /// The home folder of a user by their entry in the system's list of users (`getpwnam_r`). Without a name, that of
    /// the user of this program: `$HOME`, else by their entry. Nil where there is none, or no user of that name.
    package static func home(of user: String? = nil) -> String? {
        guard let user else {
            return variable("HOME") ?? folder { getpwuid_r(geteuid(), $0, $1, $2, $3) }
        }
        return folder { getpwnam_r(user, $0, $1, $2, $3) }
    }

    /// - Parameter find: one of libc's two look-ups, which want a buffer for the entry's texts and return ERANGE while
    ///   it is too small.
    private static func folder(
        _ find: (
            UnsafeMutablePointer<passwd>, UnsafeMutablePointer<CChar>, Int,
            UnsafeMutablePointer<UnsafeMutablePointer<passwd>?>
        ) -> Int32
    ) -> String? {
        var entry = passwd()
        var size = 1024
        while size <= 1 << 20 {
            let texts = UnsafeMutablePointer<CChar>.allocate(capacity: size)
            defer { texts.deallocate() }
            var found: UnsafeMutablePointer<passwd>?
            let error = find(&entry, texts, size, &found)
            if error == 0 {
                guard let path = found?.pointee.pw_dir, path.pointee != 0 else { return nil }
                return String(cString: path)
            }
            guard error == ERANGE else { return nil }
            size *= 4
        }
        return nil
    }

    /// A variable of the environment; nil when it is not set, or empty.
    package static func variable(_ name: String) -> String? {
        guard let text = getenv(name), text.pointee != 0 else { return nil }
        return String(cString: text)
    }

    /// The same path from `/` on, without `.`, `..` and doubled slashes. It need not exist.
    package static func absolute(_ path: String) -> String {
        var parts: [String] = path.hasPrefix("/") ? [] : split(real(".") ?? "/")
        for part in split(path) where part != "." {
            guard part == ".." else {
                parts.append(part)
                continue
            }
            // Behind a symbolic link this is the folder above the one the link leads to.
            if let folder = real("/" + parts.joined(separator: "/")) { parts = split(folder) }
            _ = parts.popLast()
        }
        return "/" + parts.joined(separator: "/")
    }

    private static func split(_ path: String) -> [String] { path.split(separator: "/").map(String.init) }

    private static func real(_ path: String) -> String? {
        guard let resolved = realpath(path, nil) else { return nil }
        defer { free(resolved) }
        return String(cString: resolved)
    }
}
