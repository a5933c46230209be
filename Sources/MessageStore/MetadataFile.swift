package import LinuxSystem

/// A small file that is replaced as a whole and must always be loadable: `config/*.json`. The last good state is kept beside it as
/// `.bak`, as RocketMQ does (`MixAll.string2File`).
package struct MetadataFile {
    package let path: String
    let disk: any Disk

    package init(path: String, disk: any Disk) {
        self.path = path
        self.disk = disk
    }

    /// What `load` found.
    package enum Loaded: Sendable {
        case absent
        case current([UInt8])
        /// The file itself was unusable; these are the bytes of `.bak`. Report `reason`.
        case backup([UInt8], reason: String)
    }

    /// Reads the file, or its backup when the file is missing or `isGood` refuses its bytes.
    package func load(isGood: ([UInt8]) -> Bool) throws(StoreError) -> Loaded { fatalError("unfinished") }

    /// Replaces the file: temporary file, synchronize, old one to `.bak`, rename, synchronize the folder. After a power cut
    /// either the old or the new bytes are loadable.
    package func save(_ bytes: [UInt8]) throws(StoreError) { fatalError("unfinished") }
}
