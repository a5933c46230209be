package import NIOCore

/// Parts of files that leave by `sendfile`: what a pull answers, and what a slave gets of the commit log.
package enum FileSending {
    /// From this many bytes on `sendfile` costs less than a copy (Decisions/0006, `Tests/Scripts/pull-benchmark`).
    package static let bytesMin = 8 << 10

    /// A descriptor as NIO wants it for a `FileRegion`. NIO marks this initializer because it wants files to be opened
    /// through `NIOFileSystem`, which has no descriptors of its caller's.
    /// - Parameter descriptor: is the handle's from now on, and closed with it.
    package static func handle(owning descriptor: Int32) -> NIOFileHandle {
        NIOFileHandle(_deprecatedTakingOwnershipOfDescriptor: descriptor)
    }
}
