import LinuxSystem

/// The folder of claims, and the two beside it while a slave replaces it. `popState.new` is filled with a master's
/// files. `popState.old` is the former `popState` until those have taken its place.
///
/// A folder cannot replace another one by one rename. So an absent `popState` beside an old one means that the second
/// rename is missing.
struct MirrorFolders {
    let present: String
    let disk: any Disk

    init(_ present: String, _ disk: any Disk) {
        self.present = present
        self.disk = disk
    }

    /// A file in a folder that a slave has copied: it is younger than the table of offsets beside it.
    static let marker = "mirrored"

    var new: String { present + ".new" }
    private var old: String { present + ".old" }
    private var above: String { String(present[..<(present.lastIndex(of: "/") ?? present.startIndex)]) }

    /// Completes a replacement that a crash has cut in two, and removes what is left of one that was not complete.
    func settle() throws(SystemError) {
        if try disk.information(present) == nil, try disk.information(old) != nil {
            try disk.rename(try disk.information(new) == nil ? old : new, to: present)
            try disk.synchronizeDirectory(above)
        }
        try remove(new)
        try remove(old)
    }

    /// The new folder, whose files are synchronized, takes the place of the present one. `clean` is to follow. After an
    /// error it may be called again.
    func replace() throws(SystemError) {
        // Also where there is nothing: then there are no claims any more.
        try disk.createDirectory(new)
        _ = try disk.open("\(new)/\(Self.marker)", .create)
        try disk.synchronizeDirectory(new)
        if try disk.information(present) != nil {
            try remove(old)
            try disk.rename(present, to: old)
        }
        try disk.rename(new, to: present)
    }

    /// After `replace`: it survives a power cut, and the former folder goes.
    func clean() throws(SystemError) {
        try disk.synchronizeDirectory(above)
        try remove(old)
    }

    /// Removes a folder with its files, if it is there.
    func remove(_ folder: String) throws(SystemError) {
        guard try disk.information(folder) != nil else { return }
        for name in try disk.list(folder) { try disk.remove("\(folder)/\(name)") }
        try disk.remove(folder)
    }
}
