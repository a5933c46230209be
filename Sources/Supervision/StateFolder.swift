import Glibc

/// Where platforms keep their data unless `--data-dir` says otherwise. apusd chooses by these, and `apus` looks there.
package enum StateFolder {
    /// The data directory of `apus.service`.
    package static let ofService = "/var/lib/apus"

    /// What systemd made for the unit this process belongs to (`StateDirectory=`), the first of several; nil outside of one.
    package static var ofUnit: String? { variable("STATE_DIRECTORY")?.split(separator: ":").first.map(String.init) }

    /// `$XDG_STATE_HOME/apus`, else `$HOME/.local/state/apus`; nil where neither is set.
    package static var ofUser: String? {
        variable("XDG_STATE_HOME").map { "\($0)/apus" } ?? variable("HOME").map { "\($0)/.local/state/apus" }
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
