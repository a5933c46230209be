import FastJSON
import LinuxSystem
import Logging
import MessageStore
import MetadataStore

/// The files of the broker's tables: where they are, and what is read from them at the start. Confined to the broker's
/// event loop.
final class TableFiles {
    private let environment: BrokerEnvironment
    private let folder: String
    private let tables: [ConfigurationFile: any PersistentTable]

    /// - Parameters:
    ///   - folder: `storePathRootDir/config`.
    ///   - table: the table of a file.
    init(
        _ environment: BrokerEnvironment, folder: String, _ table: (ConfigurationFile) -> any PersistentTable
    ) {
        self.environment = environment
        self.folder = folder
        tables = Dictionary(uniqueKeysWithValues: ConfigurationFile.allCases.map { ($0, table($0)) })
    }

    subscript(file: ConfigurationFile) -> any PersistentTable {
        guard let table = tables[file] else { preconditionFailure("every file has its table") }
        return table
    }

    func path(_ file: ConfigurationFile) -> String { folder + "/" + file.rawValue }

    /// Reads all of them.
    /// - Throws: `BrokerError.metadata` when neither a file nor its backup can be used.
    func load() throws(BrokerError) {
        for file in ConfigurationFile.allCases { try load(file) }
    }

    private func load(_ file: ConfigurationFile) throws(BrokerError) {
        let path = path(file)
        let logger = environment.logger
        let metadata = MetadataFile(path: path, disk: environment.disk)
        do {
            switch try metadata.load(quality: { file.quality(of: $0) }) {
            case .absent: break
            case .empty(let reason):
                logger.error(
                    """
                    \(reason), and so is its backup, if there is one: the broker begins without it; if it held \
                    something, stop the broker and restore it
                    """
                )
            case .current(let bytes): try take(file, bytes)
            case .backup(let bytes, let reason):
                logger.error(
                    "\(reason); its backup is used: what was changed after that is lost and has to be changed again")
                try take(file, bytes)
                restore(metadata, bytes)
            }
        } catch {
            guard file != .timerMetrics else {
                // Counts for display: they must not stop a start.
                logger.warning("\(path) is not usable: \(error); timer messages are counted anew")
                return
            }
            throw .metadata(path: path, reason: "\(error)")
        }
    }

    /// A disk that is full at the start does not stop it: the backup is still there.
    private func restore(_ metadata: MetadataFile, _ bytes: [UInt8]) {
        do throws(MetadataError) {
            try metadata.restore(bytes)
        } catch {
            environment.logger.error("\(metadata.path) could not be restored from its backup, which stays: \(error)")
        }
    }

    private func take(_ file: ConfigurationFile, _ bytes: [UInt8]) throws {
        let refused = try self[file].load(file: JSONValue(parsing: bytes, limits: .tables))
        if !refused.isEmpty { park(refused, of: file) }
    }

    /// Entries that cannot be used are kept beside the table, for an operator; the table's next write is without them.
    private func park(_ refused: [RefusedEntry], of file: ConfigurationFile) {
        let aside = path(file) + ".refused"
        do throws(MetadataError) {
            try MetadataFile(path: aside, disk: environment.disk).save(refused.json.bytes(.pretty))
        } catch {
            environment.logger.error("\(aside) could not be written, the entries left out are not kept: \(error)")
        }
        environment.logger.error(
            """
            \(refused.count) entries of \(path(file)) cannot be used and are left out: \(refused.summary); they are \
            kept in \(aside): make them again, corrected (mqadmin), or delete that file
            """
        )
    }
}
