import MessageModel

/// What a store directory of RocketMQ or Apus holds, as `StoreSurvey` has read it: facts only. `StoreFindings` states
/// what they mean.
///
/// Times are milliseconds since 1970, sizes bytes.
package struct StoreReport: Sendable {
    /// The broker that ran on the store last.
    package enum Writer: String, Sendable {
        case noBroker = "none"
        case apus
        case rocketMQ4 = "rocketmq4"
        case rocketMQ5 = "rocketmq5"
    }

    /// The commit log.
    package struct Log: Sendable {
        /// Where it lies (`storePathCommitLog`).
        package var folder: String
        /// How many.
        package var files = 0
        /// Of each file; 0 without any.
        package var fileSize: Int64 = 0
        /// Where the oldest file begins: a physical offset.
        package var first: Int64 = 0
        /// Where the last whole record ends: a physical offset.
        package var end: Int64 = 0
        /// Of the newest message that was read; 0 for none.
        package var newestMilliseconds: Int64 = 0
        /// Messages after the queues' ends: the next start enters them.
        package var unqueued: Int64 = 0
        /// What is wrong with the files, as a text.
        package var damage: [String] = []
        /// No message at all.
        package var isEmpty = true
        /// What knows of messages beside an empty log; nil when nothing does.
        package var emptyBeside: String?
    }

    /// One consume queue.
    package struct Queue: Sendable {
        /// By its folder's name; `topics.json` may not have it.
        package let topic: String
        /// By its folder's name, 0 or above.
        package let queueID: Int32
        /// The queue offset of the first message still in the log.
        package var first: Int64
        /// The queue offset the next message gets.
        package var end: Int64
        /// Where the newest entry's record ends in the log; 0 for none.
        package var logEnd: Int64
    }

    /// A topic's queues added up.
    package struct Topic: Sendable {
        /// From its folder or from `topics.json`.
        package let name: String
        /// By identifier; empty for a topic without a message.
        package var queues: [Queue]
        /// `topics.json` has it.
        package var isKnown: Bool
        /// As `topics.json` has them; empty when it does not know the topic.
        package var attributes: [String: String] = [:]
        /// Messages of all queues that are still in the log.
        package var messages: Int64 { queues.reduce(0) { $0 +| max(0, $1.end - $1.first) } }
    }

    /// How far a group has come in one topic.
    package struct Progress: Sendable {
        /// As `consumerOffset.json` has it; groups of the broker itself are left out.
        package let group: String
        /// As `consumerOffset.json` has it; there may be no such topic any more.
        package let topic: String
        /// Messages after the committed offsets.
        package var lag: Int64
        /// Queues with an offset.
        package var queues: Int
        /// Queues with messages and without an offset.
        package var queuesWithout: Int
        /// By queue.
        package var offsets: [Int32: Int64]
    }

    /// What a group could not consume.
    package struct Returned: Sendable {
        /// The part of the retry or dead letter topic's name after its prefix.
        package let group: String
        /// Waiting to be delivered again.
        package var retries: Int64
        /// Given up.
        package var deadLetters: Int64
    }

    /// A delay level with messages that wait.
    package struct Delay: Sendable {
        /// From 1 on: the queue's identifier + 1.
        package let level: Int
        /// Nil: RocketMQ's standard levels do not have it.
        package let delayMilliseconds: Int64?
        /// Neither RocketMQ's table nor Apus's own note has them as delivered.
        package var pending: Int64
        /// Besides those: delivered by Apus, and not counted in RocketMQ's file.
        package var uncounted: Int64
    }

    /// Messages with a time of their own.
    package struct Timers: Sendable {
        /// Not delivered and not cancelled.
        package var pending: Int64 = 0
        /// When the first of them is due; 0 without any.
        package var firstDueMilliseconds: Int64 = 0
        /// When the last of them is due; 0 without any.
        package var lastDueMilliseconds: Int64 = 0
        /// Of those: the log has forgotten them, only Apus's own files hold them.
        package var onlyInApus: Int64 = 0
        /// Apus has delivered them, and RocketMQ 5 would once more: its own notes are older.
        package var deliveredAgain: Int64 = 0
        /// Edits have stored them anew or for another time; RocketMQ 5 would deliver them as they were, too.
        package var restored: Int64 = 0
    }

    /// Messages that were edited or deleted, apart from timer messages.
    package struct Edits: Sendable {
        /// Edited messages some group, or the delivery of delayed or prepared messages, has not come to.
        package var changed: Int64 = 0
        /// Deleted messages, likewise.
        package var deleted: Int64 = 0
        /// Edited or deleted ones that all groups have passed.
        package var behind: Int64 = 0
        /// At most 100, sorted.
        package var topics: [String] = []
        /// Why it is not known which they are, as a text.
        package var problem: String?
    }

    /// A setting that was changed while Apus ran, and is in no configuration file.
    package struct Setting: Equatable, Sendable {
        /// RocketMQ's key, as in a configuration file.
        package let key: String
        /// What holds now, as it is written.
        package let value: String
        /// What the file contained then; nil: nothing.
        package let file: String?
    }

    /// Files RocketMQ does not look at.
    package struct OwnFile: Sendable {
        /// Path from the store's folder, of a file or a whole folder.
        package let name: String
        /// Of all files in it.
        package let bytes: Int64
        /// What it holds, for the operator.
        package let meaning: String
    }

    /// A table that is not what it should be.
    package struct Table: Sendable {
        /// What a broker makes of it.
        package enum Consequence: Sendable { case backupUsed, nothingUsed, entriesLeftOut }

        /// The file below `config`.
        package let name: String
        /// For the operator.
        package let problem: String
        /// In the broker that starts next.
        package let consequence: Consequence
    }

    /// The store's directory (`storePathRootDir`), without a slash at its end.
    package var folder: String
    /// Recognized by `writerSign`.
    package var writer = Writer.noBroker
    /// By what the writer was recognized.
    package var writerSign = ""
    /// No file `abort`.
    package var isClean = true
    /// With its damage, if any.
    package var log: Log
    /// In the order of names, system topics included.
    package var topics: [Topic] = []
    /// In the order of groups, then topics.
    package var progress: [Progress] = []
    /// In the order of groups; only those with messages.
    package var returned: [Returned] = []
    /// In `subscriptionGroup.json`.
    package var groupCount = 0
    /// In the order of levels; only those with messages RocketMQ would deliver.
    package var delays: [Delay] = []
    /// All zero without timer messages.
    package var timers = Timers()
    /// All zero when nothing was edited.
    package var edits = Edits()
    /// Half messages without an outcome.
    package var openTransactions: Int64 = 0
    /// As `changedSettings.json` has them.
    package var settings: [Setting] = []
    /// Files and folders of Apus that are there.
    package var ownFiles: [OwnFile] = []
    /// Empty when each can be read as a whole, or is absent.
    package var tables: [Table] = []
    /// What of RocketMQ's the folder has and Apus does not read.
    package var foreign: [ForeignPart] = []
    /// Bytes of each consume queue file; 0 without any.
    package var queueFileSize: Int64 = 0
    /// Queues (TOPIC/QUEUE) with files of another size: cut off, or of other settings.
    package var damagedQueues: [String] = []
    /// Of the broker whose disk this is (`.apus-disk` above the store).
    package var brokerName: String?

    package init(folder: String, log: Log) {
        self.folder = folder
        self.log = log
    }

    /// The topic's queues; none when there is no such topic.
    package func queues(of topic: String) -> [Queue] { topics.first { $0.name == topic }?.queues ?? [] }
}

/// Parts of a RocketMQ store that Apus does not have, with what that means for an operator who moves over.
package enum ForeignPart: Equatable, Sendable {
    /// Folders of DLedger's log.
    case dledger(folders: [String])
    /// Folders RocksDB lies in.
    case rocksDB(folders: [String])
    /// Topics that keep the newest message of each key.
    case compaction(topics: [String])
    /// Topics with queues of batches (`batchconsumequeue`).
    case batchQueues(topics: [String])
    /// Static topics (`topicQueueMapping.json`).
    case staticTopics([String])
    /// Groups that consume by POP, and the entries of its revive log not yet read.
    case pop(groups: [String], unrevived: Int64)
    /// Tag filters of queues with extensions are looked up there.
    case queueExtensions
    /// Older messages lie in another storage.
    case tieredStore
    /// Topics longer than a record of RocketMQ 4 can name.
    case longTopics([String])
}
