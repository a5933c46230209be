/// The header of POP_MESSAGE (200050): views into the frame, valid as long as it is. Times are milliseconds.
package struct PopMessageRequestHeader {
    /// Name in UTF-8, not checked yet.
    package let consumerGroup: UnsafeRawBufferPointer
    /// Name in UTF-8, not checked yet.
    package let topic: UnsafeRawBufferPointer
    /// Below 0: any queue that may be read.
    package let queueID: Int32
    /// Messages wanted at most (`maxMsgNums`).
    package let maxMessageNums: Int32
    /// How long no other client gets the messages.
    package let invisibleTime: Int64
    /// How long the broker may wait for a message.
    package let pollTime: Int64
    /// When the client sent it; 0 when it does not state it.
    package let bornTime: Int64
    /// 0: a group without offsets begins at the first message; 1: at the last.
    package let initMode: Int32
    /// `TAG`, `SQL92` or the type of a plugin, in UTF-8 (`expType`).
    package let expressionType: UnsafeRawBufferPointer?
    /// In UTF-8 (`exp`).
    package let expression: UnsafeRawBufferPointer?
    /// The group consumes in order.
    package let isOrdered: Bool
    /// The same for repetitions of one request whose answer was lost; ordered groups.
    package let attemptID: UnsafeRawBufferPointer?

    /// - Throws: a field is missing, or is no number.
    package init(_ frame: RemotingFrame) throws(RemotingDecodeError) {
        let fields = frame.extFields
        consumerGroup = try fields.requiredBytes("consumerGroup")
        topic = try fields.requiredBytes("topic")
        queueID = try fields.requiredInt32("queueId")
        maxMessageNums = try fields.requiredInt32("maxMsgNums")
        invisibleTime = try fields.requiredInt64("invisibleTime")
        pollTime = try fields.requiredInt64("pollTime")
        bornTime = try fields.requiredInt64("bornTime")
        initMode = try fields.requiredInt32("initMode")
        expressionType = fields.bytes("expType")
        expression = fields.bytes("exp")
        isOrdered = fields.bool("order") ?? false
        attemptID = fields.bytes("attemptId").flatMap { $0.isEmpty ? nil : $0 }
    }
}

/// What names a message in ACK_MESSAGE (200051) and CHANGE_MESSAGE_INVISIBLETIME (200053): views into the frame.
package struct PoppedMessageHeader {
    /// Name in UTF-8, not checked yet.
    package let consumerGroup: UnsafeRawBufferPointer
    /// The topic the message lies in, maybe a retry topic; not checked yet.
    package let topic: UnsafeRawBufferPointer
    /// From 0; not checked yet.
    package let queueID: Int32
    /// Queue offset of the message.
    package let offset: Int64
    /// A `PopHandle`.
    package let extraInfo: UnsafeRawBufferPointer

    /// - Throws: a field is missing, or is no number.
    package init(_ frame: RemotingFrame) throws(RemotingDecodeError) {
        let fields = frame.extFields
        consumerGroup = try fields.requiredBytes("consumerGroup")
        topic = try fields.requiredBytes("topic")
        queueID = try fields.requiredInt32("queueId")
        offset = try fields.requiredInt64("offset")
        extraInfo = try fields.requiredBytes("extraInfo")
    }
}

/// What PEEK_MESSAGE (200052), NOTIFICATION (200054) and POLLING_INFO (200055) have in common: views into the frame.
package struct PopQueueHeader {
    /// Name in UTF-8, not checked yet.
    package let consumerGroup: UnsafeRawBufferPointer
    /// Name in UTF-8, not checked yet.
    package let topic: UnsafeRawBufferPointer
    /// Below 0: any queue that may be read.
    package let queueID: Int32

    /// - Throws: a field is missing, or is no number.
    package init(_ frame: RemotingFrame) throws(RemotingDecodeError) {
        let fields = frame.extFields
        consumerGroup = try fields.requiredBytes("consumerGroup")
        topic = try fields.requiredBytes("topic")
        queueID = try fields.requiredInt32("queueId")
    }
}

extension ExtFields {
    /// - Throws: `missingField`.
    package func requiredBytes(_ name: StaticString) throws(RemotingDecodeError) -> UnsafeRawBufferPointer {
        guard let bytes = bytes(name) else { throw .missingField(name.text) }
        return bytes
    }
}
