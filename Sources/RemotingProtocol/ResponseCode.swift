/// How a request ended. Raw values and names are RocketMQ's (`RemotingSysResponseCode` and `ResponseCode`, 4.9.8).
package enum ResponseCode: Int32, CaseIterable, Sendable {
    case success = 0
    case systemError = 1
    case systemBusy = 2
    case requestCodeNotSupported = 3
    case transactionFailed = 4
    case flushDiskTimeout = 10
    case slaveNotAvailable = 11
    case flushSlaveTimeout = 12
    case messageIllegal = 13
    case serviceNotAvailable = 14
    case versionNotSupported = 15
    case noPermission = 16
    case topicNotExist = 17
    case topicExistAlready = 18
    case pullNotFound = 19
    case pullRetryImmediately = 20
    case pullOffsetMoved = 21
    case queryNotFound = 22
    case subscriptionParseFailed = 23
    case subscriptionNotExist = 24
    case subscriptionNotLatest = 25
    case subscriptionGroupNotExist = 26
    case filterDataNotExist = 27
    case filterDataNotLatest = 28
    case invalidParameter = 29
    case transactionShouldCommit = 200
    case transactionShouldRollback = 201
    case transactionStateUnknown = 202
    case transactionStateGroupWrong = 203
    case noBuyerID = 204
    case notInCurrentUnit = 205
    case consumerNotOnline = 206
    case consumeMessageTimeout = 207
    case noMessage = 208
    case updateAndCreateACLConfigFailed = 209
    case deleteACLConfigFailed = 210
    case updateGlobalWhiteAddrsConfigFailed = 211
    case flowControl = 215
    /// Of 5.x.
    case illegalOperation = 604
}

extension ResponseCode {
    /// As many pops wait as may (5.x). 4.9 has another meaning for the number.
    package static var pollingFull: ResponseCode { .updateAndCreateACLConfigFailed }
    /// Nothing came in the time a pop could wait (5.x). 4.9 has another meaning for the number.
    package static var pollingTimeout: ResponseCode { .deleteACLConfigFailed }
}
