import CLinux
import Glibc

/// The one owner of an open file descriptor; it closes when its owner goes.
package struct Descriptor: ~Copyable, Sendable {
    /// The number for system calls; valid as long as this value.
    package let raw: Int32

    /// - Parameter raw: an open descriptor that only this value closes.
    package init(owning raw: Int32) {
        precondition(raw >= 0, "not a descriptor: \(raw)")
        self.raw = raw
    }

    deinit { _ = close(raw) }

    /// Gives the descriptor away: the caller closes it.
    package consuming func release() -> Int32 {
        let raw = raw
        discard self
        return raw
    }

    /// A second owner of the same open file.
    /// - Throws: there is no free descriptor.
    package func duplicate() throws(SystemError) -> Descriptor {
        let copy = fcntl(raw, F_DUPFD_CLOEXEC, 0)
        return Descriptor(owning: try check(copy < 0 ? -errno : copy, "dup", "descriptor \(raw)"))
    }

    /// For all processes that share the open file, not only for this descriptor.
    /// - Throws: the kernel refuses (`fcntl`).
    package func setNonBlocking(_ on: Bool) throws(SystemError) {
        try check(apus_set_nonblocking(raw, on), "fcntl", "descriptor \(raw)")
    }
}

/// The same for a descriptor that is kept in a class, an array or a dictionary, where `~Copyable` cannot.
package final class SharedDescriptor: Sendable {
    /// The number for system calls; valid as long as this object.
    package let raw: Int32

    /// Takes it over.
    package init(_ descriptor: consuming Descriptor) { raw = descriptor.release() }

    deinit { _ = close(raw) }
}
