import Glibc
import LinuxSystem
import MessageModel

/// The journals of a folder as the trail: those a snapshot has replaced, kept under another name, and those in use.
struct TrailFiles {
    /// What a file counts at least: many short ones are not kept for ever either.
    private static let bytesMin: Int64 = 4096
    /// Files that are kept: a question opens all of them.
    private static let filesMax = 256

    let folder: String
    let disk: any Disk

    init(_ folder: String, _ disk: any Disk) {
        self.folder = folder
        self.disk = disk
    }

    /// Removes the oldest files no snapshot needs until the others have `max` bytes at most.
    /// - Throws: the disk refuses.
    func trim(to max: Int64) throws(SystemError) {
        let kept = try disk.list(folder).compactMap { ClaimFile.parseTrail($0) }.sorted(by: >)
        var bytes: Int64 = 0
        for (index, number) in kept.enumerated() {
            let path = "\(folder)/\(ClaimFile.trailName(number))"
            guard let size = try disk.information(path)?.size else { continue }
            bytes = bytes +| Swift.max(size, Self.bytesMin)
            if bytes > max || index >= Self.filesMax { try disk.remove(path) }
        }
    }

    /// Opens all of them, oldest first. A file that a snapshot renames or removes afterwards stays open.
    /// - Throws: the disk refuses.
    func open() throws(SystemError) -> [(number: UInt32, file: any DiskFile)] {
        for _ in 0..<4 {
            // A snapshot may rename one between listing and opening.
            do throws(SystemError) { return try openListed() } catch {
                guard error.errno == ENOENT else { throw error }
            }
        }
        return try openListed()
    }

    private func openListed() throws(SystemError) -> [(number: UInt32, file: any DiskFile)] {
        var names: [UInt32: String] = [:]
        for name in try disk.list(folder) {
            if let file = ClaimFile.parse(name), file.kind == .journal { names[file.number] = name }
            if let number = ClaimFile.parseTrail(name) { names[number] = name }
        }
        var files: [(number: UInt32, file: any DiskFile)] = []
        for (number, name) in names.sorted(by: { $0.key < $1.key }) {
            files.append((number, try disk.open("\(folder)/\(name)", .read)))
        }
        return files
    }
}
