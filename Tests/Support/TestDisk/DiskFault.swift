import Synchronization

/// A switch for `SimulatedDisk.fault`: which call fails, with what, after how many that do not. Without Foundation, to
/// which no text contains an empty one: `path: ""` means any.
package final class DiskFault: Sendable {
    private let state = Mutex<(call: String, path: String, code: Int32, skip: Int)?>(nil)

    package init() {}

    package func set(_ call: String, path: String = "", code: Int32, after skip: Int = 0) {
        state.withLock { $0 = (call, path, code, skip) }
    }

    package func clear() { state.withLock { $0 = nil } }

    package func answer(_ call: String, _ path: String) -> Int32? {
        state.withLock { state in
            guard let current = state, current.call == call, path.contains(current.path) else { return nil }
            if current.skip > 0 {
                state = (current.call, current.path, current.code, current.skip - 1)
                return nil
            }
            return current.code
        }
    }
}
