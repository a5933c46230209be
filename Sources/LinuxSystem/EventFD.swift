import CLinux

/// A counter one process adds to and another waits on (eventfd(2), non-blocking).
package enum EventFD {
    /// A counter at 0, non-blocking.
    /// - Throws: there is no free descriptor.
    package static func create() throws(SystemError) -> Descriptor {
        Descriptor(owning: try check(apus_eventfd(), "eventfd", "new"))
    }

    /// Wakes the reader that waits. A full counter (2^64 - 2 unread signals) still wakes, so that is no failure.
    package static func signal(_ fd: Int32) {
        let result = apus_eventfd_signal(fd)
        precondition(result == 0, "eventfd_write \(fd): \(SystemError.text(-result))")
    }

    /// Takes all signals so far; 0 when there were none.
    @discardableResult
    package static func take(_ fd: Int32) -> UInt64 {
        var count: UInt64 = 0
        let result = apus_eventfd_take(fd, &count)
        precondition(result == 0, "eventfd_read \(fd): \(SystemError.text(-result))")
        return count
    }
}

/// inotify(7), as a descriptor an event loop can wait for.
package enum FolderWatch {
    /// A descriptor that becomes readable when a file of the folder was written and closed, moved in or out, or
    /// removed. What is read from it names the file; a reader that lists the whole folder anyway may ignore it.
    /// - Throws: there is no such folder, or the user has no watch left (`fs.inotify`).
    package static func create(_ path: String) throws(SystemError) -> Descriptor {
        Descriptor(owning: try check(apus_watch_folder(path), "inotify_add_watch", path))
    }
}
