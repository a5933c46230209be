/// The header of a pull (11, 361): views into the frame, valid as long as it is.
package struct PullMessageRequestHeader {
    /// Name in UTF-8, not checked yet.
    package internal(set) var consumerGroup = UnsafeRawBufferPointer(start: nil, count: 0)
    /// Name in UTF-8, not checked yet.
    package internal(set) var topic = UnsafeRawBufferPointer(start: nil, count: 0)
    /// From 0; not checked yet.
    package internal(set) var queueID: Int32 = 0
    /// Of the first entry wanted, from the queue's beginning.
    package internal(set) var queueOffset: Int64 = 0
    /// Messages wanted at most (`maxMsgNums`).
    package internal(set) var maxMessageNums: Int32 = 0
    /// `PullSysFlag`: 1 commit offset, 2 suspend, 4 subscription in this header, 8 class filter, 16 lite pull.
    package internal(set) var sysFlag: Int32 = 0
    /// Queue offset up to which the group has consumed; counts when `sysFlag` has 1.
    package internal(set) var commitOffset: Int64 = 0
    /// How long the broker may wait for a message; counts when `sysFlag` has 2.
    package internal(set) var suspendTimeoutMilliseconds: Int64 = 0
    /// The expression in UTF-8; counts when `sysFlag` has 4.
    package internal(set) var subscription: UnsafeRawBufferPointer?
    /// Version of the client's subscription: milliseconds since 1970.
    package internal(set) var subVersion: Int64 = 0
    /// `TAG`, `SQL92` or a plugin's type, in UTF-8. nil means `TAG`.
    package internal(set) var expressionType: UnsafeRawBufferPointer?
    /// 5.x clients: bytes they want at most.
    package internal(set) var maxMessageBytes: Int32?

    /// `FLAG_COMMIT_OFFSET`.
    package var hasCommitOffset: Bool { sysFlag & 1 != 0 }
    /// `FLAG_SUSPEND`: the broker may wait for a message.
    package var hasSuspend: Bool { sysFlag & 2 != 0 }
    /// `FLAG_SUBSCRIPTION`: the expression is in this header, not in the heartbeat.
    package var hasSubscription: Bool { sysFlag & 4 != 0 }
    /// `FLAG_CLASS_FILTER`: the consumer wants a class of its own to filter.
    package var hasClassFilter: Bool { sysFlag & 8 != 0 }
    /// `FLAG_LITE_PULL_MESSAGE`: from a lite pull consumer (361).
    package var isLitePull: Bool { sysFlag & 16 != 0 }

    private static let required: UInt16 = 0x1ff
    private static let names: [StaticString] = [
        "consumerGroup", "topic", "queueId", "queueOffset", "maxMsgNums", "sysFlag", "commitOffset",
        "suspendTimeoutMillis", "subVersion",
    ]

    /// - Throws: `missingField` or `badField`, with the name of the field.
    package init(_ frame: RemotingFrame) throws(RemotingDecodeError) {
        var seen: UInt16 = 0
        for field in frame.extFields.fields {
            let value = field.valueBytes
            switch field.nameCount {
            case 5 where field.isNamed("topic"):
                topic = value
                seen |= 2
            case 7 where field.isNamed("queueId"):
                queueID = try value.int32("queueId")
                seen |= 4
            case 7 where field.isNamed("sysFlag"):
                sysFlag = try value.int32("sysFlag")
                seen |= 32
            case 10 where field.isNamed("maxMsgNums"):
                maxMessageNums = try value.int32("maxMsgNums")
                seen |= 16
            case 10 where field.isNamed("subVersion"):
                subVersion = try value.integer("subVersion")
                seen |= 256
            case 11 where field.isNamed("queueOffset"):
                queueOffset = try value.integer("queueOffset")
                seen |= 8
            case 11 where field.isNamed("maxMsgBytes"):
                maxMessageBytes = try value.int32("maxMsgBytes")
            case 12 where field.isNamed("commitOffset"):
                commitOffset = try value.integer("commitOffset")
                seen |= 64
            case 12 where field.isNamed("subscription"):
                subscription = value
            case 13 where field.isNamed("consumerGroup"):
                consumerGroup = value
                seen |= 1
            case 14 where field.isNamed("expressionType"):
                expressionType = value
            case 20 where field.isNamed("suspendTimeoutMillis"):
                suspendTimeoutMilliseconds = try value.integer("suspendTimeoutMillis")
                seen |= 128
            default: break
            }
        }
        guard seen == Self.required else {
            throw .missingField(Self.names[(~seen & Self.required).trailingZeroBitCount].text)
        }
    }
}
