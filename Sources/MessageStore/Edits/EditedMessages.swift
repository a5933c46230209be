package import LinuxSystem
package import StoreFormat

/// Which messages of a store were edited, as its file of edits shows: for those who look at a store no broker has open.
/// Edits of the last seconds before a kill are in the log only.
package struct EditedMessages: Sendable {
    /// One message that was edited.
    package struct Message: Equatable, Sendable {
        /// As the file has it: the topic the message is stored under.
        package let topic: String
        /// The queue it is stored in.
        package let queueID: Int32
        /// In its queue; an edit does not change it.
        package let offset: QueueOffset
        /// Where the record begins that stands for it, or the mark of its deletion.
        package let physicalOffset: PhysicalOffset
        /// It is delivered no more.
        package let isDeleted: Bool
    }

    /// One for each edited message, queue by queue. Empty when the file is absent or cannot be used.
    package var messages: [Message] = []
    /// Why the file cannot be used, as a text: the next start reads the log instead.
    package var problem: String?

    /// Reads the file, which is small. None: nothing was edited.
    /// - Throws: it is not known whether there is one.
    package static func read(
        _ configuration: StoreConfiguration, disk: any Disk
    ) throws(SystemError) -> EditedMessages {
        let file = EditFile(path: configuration.consumeQueuePath + "/" + EditFile.fileName, disk: disk)
        var found = EditedMessages()
        switch try file.load() {
        case .absent: break
        case .damaged(let reason): found.problem = reason
        case .table(let table):
            for queue in table.queues {
                let topic = String(decoding: queue.topic, as: UTF8.self)
                // The versions of a message follow each other; the last one stands for it.
                for (place, row) in queue.rows.enumerated()
                where place + 1 == queue.rows.count || queue.rows[place + 1].offset != row.offset {
                    found.messages.append(
                        Message(
                            topic: topic, queueID: queue.queueID, offset: row.offset,
                            physicalOffset: row.version.physicalOffset, isDeleted: row.version.isDeleted))
                }
            }
        }
        return found
    }
}
