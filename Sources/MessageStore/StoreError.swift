package import LinuxSystem
package import MessageModel
package import SettingTable
package import StoreFormat

/// What the world can do to a store. The text names the cause and the remedy.
package enum StoreError: Error, CustomStringConvertible {
    /// A file operation failed.
    case disk(SystemError)
    /// Another process has this store open.
    case locked(path: String)
    /// A setting does not make sense.
    case configuration(SettingRefusal)
    /// A file is not what its name states, and opening it would lose data.
    case damaged(path: String, reason: String)
    /// The log has no messages, and something beside it knows of some; nothing was changed.
    case emptyLog(log: String, evidence: String, permit: String)
    /// The store takes no writes until it has been verified: a flush or a write failed.
    case notWritable(reason: String)

    /// For operators: cause, consequence, remedy.
    package var description: String {
        switch self {
        case .disk(let error): "\(error)"
        case .locked(let path):
            """
            the store is in use: another broker holds the lock on \(path); stop it, or give this broker another \
            storePathRootDir
            """
        case .configuration(let refusal): "\(refusal)"
        case .damaged(let path, let reason): "\(path) is damaged: \(reason)"
        case .emptyLog(let log, let evidence, let permit):
            "there are no messages in \(log), but \(evidence): is its disk mounted, and is storePathCommitLog right? "
                + "Nothing was changed. To begin anew without those messages, make the file \(permit)"
        case .notWritable(let reason): "the store takes no messages: \(reason)"
        }
    }
}

/// Why `append` did not take a message. Nothing of it is in the log.
package enum AppendRefusal: Error, Equatable, CustomStringConvertible {
    /// The body is larger than `maxMessageSize` bytes, or the record larger than a log file.
    case messageTooLarge(limit: Int)
    /// Properties are larger than 32 767 bytes.
    case propertiesTooLarge
    /// The topic has no bytes or more than 127.
    case topicLength(Int)
    /// The topic's name cannot be that of a folder.
    case topicName(NameError)
    /// Queues are numbered from 0.
    case queueID(Int32)
    /// The body of a batch is not a sequence of encoded messages.
    case malformedBatch(String)
    /// The system flag marks it as prepared or rolled back, which no consumer ever sees, but it belongs to no
    /// transaction.
    case unreadable
    /// There is no such message: its offset is not (any more) in the queue, or it is deleted.
    case noSuchMessage(QueueOffset)
    /// Another version than the one to be replaced stands for the message.
    case editedMeanwhile(present: PhysicalOffset)
    /// So many versions of messages are kept at most.
    case tooManyEdits(limit: Int)
    /// The disk has no room; the remark states which disk, how full, and what frees it.
    case diskFull(remark: String)
    /// The store takes no writes at the moment.
    case notWritable(remark: String)

    /// For the remark of a response.
    package var description: String {
        switch self {
        case .messageTooLarge(let limit): "the message is larger than maxMessageSize, \(limit) bytes"
        case .propertiesTooLarge: "the message properties are larger than 32767 bytes"
        case .topicLength(let count): "the topic has \(count) bytes; 1 to 127 are possible"
        case .topicName(let error): "no queue can be made: \(error)"
        case .queueID(let number): "no queue has the number \(number): they begin at 0"
        case .malformedBatch(let reason): "the batch is malformed: \(reason)"
        case .unreadable:
            """
            sysFlag marks the message as prepared or rolled back, but its property TRAN_MSG is not true: no consumer \
            could read it
            """
        case .noSuchMessage(let offset):
            "the queue has no message \(offset): it has expired or was deleted, or the offset is wrong"
        case .editedMeanwhile(let present):
            "the message was edited meanwhile, the version at \(present) stands for it now: look at it and try again"
        case .tooManyEdits(let limit):
            """
            \(limit) versions of edited and deleted messages are kept, and no more: wait until the oldest of them have \
            expired with their log files (fileReservedTime), or delete topics that are not needed
            """
        case .diskFull(let remark), .notWritable(let remark): remark
        }
    }
}

/// Where an accepted message will be once `commitTick` has succeeded.
package struct AppendResult: Equatable, Sendable {
    /// Of the first message.
    package let physicalOffset: PhysicalOffset
    /// Bytes of all its records.
    package let size: Int
    /// Of the first message; the others of a batch follow it. 0 for prepared and rolled back messages.
    package let queueOffset: QueueOffset
    /// Messages: 1, or those of a batch.
    package let count: Int
    /// Milliseconds since 1970.
    package let storeTimestamp: Int64

    /// End of the last record: an acknowledgement waits until this much is flushed or replicated.
    package var end: PhysicalOffset { physicalOffset + size }
}

/// What became of a message: it has its offsets in log and queue, or nothing at all was changed.
package enum AppendOutcome: Equatable {
    case appended(AppendResult)
    case refused(AppendRefusal)
}

/// What became of bytes of a master's log.
package enum ReplicatedAppendOutcome: Equatable {
    /// Taken; the next bytes must start here.
    case appended(next: PhysicalOffset)
    /// Not taken: the log continues at `expected`.
    case refused(expected: PhysicalOffset, reason: String)
}
