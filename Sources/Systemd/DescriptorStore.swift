import CSystemd

/// systemd's store of open descriptors (FileDescriptorStoreMax=). What is kept there comes back with
/// `SocketActivation.take` to the next main process of the service, after a crash as after `systemctl restart`. A
/// stopped service's store is emptied.
///
/// A value of closures, so that a test can stand in for systemd.
package struct DescriptorStore {
    private let keepDescriptor: (Int32, String) -> Void
    private let forgetName: (String) -> Void

    package init(keep: @escaping (Int32, String) -> Void, forget: @escaping (String) -> Void) {
        keepDescriptor = keep
        forgetName = forget
    }

    /// The store of the systemd that started this process; does nothing without one.
    package static var systemd: DescriptorStore {
        DescriptorStore { fd, name in
            var fd = fd
            // A name is at most 255 characters, none of them a control character or a colon (sd_notify(3)).
            precondition(name.utf8.count < 256 && !name.contains(":"), "not a name for FDNAME=: \(name)")
            _ = sd_pid_notify_with_fds(0, 0, "FDSTORE=1\nFDNAME=\(name)", &fd, 1)
        } forget: { name in
            _ = sd_notify(0, "FDSTOREREMOVE=1\nFDNAME=\(name)")
        }
    }

    /// Keeps nothing.
    package static var none: DescriptorStore { DescriptorStore(keep: { _, _ in }, forget: { _ in }) }

    /// A copy of `fd` under `name`; it stays the caller's, too.
    package func keep(_ fd: Int32, _ name: String) { keepDescriptor(fd, name) }

    /// All that is kept under `name` is closed in systemd.
    package func forget(_ name: String) { forgetName(name) }
}
