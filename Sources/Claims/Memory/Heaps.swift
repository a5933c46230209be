/// What an `IndexedHeap` orders: an object that remembers its position.
protocol HeapElement: AnyObject {
    /// What it is ordered by; changed by `IndexedHeap.setKey` only while it is in a heap.
    var heapKey: Int64 { get set }
    /// Its position; -1 while it is in no heap.
    var heapIndex: Int32 { get set }
}

/// A binary heap of objects, the smallest key first, from which any one can be taken: 8 bytes an object.
struct IndexedHeap<Element: HeapElement> {
    private var elements: [Element] = []

    /// The one with the smallest key.
    var first: Element? { elements.first }
    var isEmpty: Bool { elements.isEmpty }

    /// Takes in an object that is in no heap.
    mutating func insert(_ element: Element) {
        precondition(element.heapIndex < 0, "the object is in a heap already")
        elements.append(element)
        element.heapIndex = Int32(elements.count - 1)
        siftUp(elements.count - 1)
    }

    /// Takes out an object that is in this heap.
    mutating func remove(_ element: Element) {
        let index = Int(element.heapIndex)
        precondition(index >= 0 && elements[index] === element, "the object is not in this heap")
        element.heapIndex = -1
        let last = elements.removeLast()
        if elements.isEmpty { elements = [] }
        guard index < elements.count else { return }
        elements[index] = last
        last.heapIndex = Int32(index)
        siftUp(index)
        siftDown(Int(last.heapIndex))
    }

    /// Changes the key of an object that is in this heap.
    mutating func setKey(_ key: Int64, of element: Element) {
        guard key != element.heapKey else { return }
        let isLower = key < element.heapKey
        element.heapKey = key
        if isLower { siftUp(Int(element.heapIndex)) } else { siftDown(Int(element.heapIndex)) }
    }

    /// Forgets all objects.
    mutating func removeAll() {
        for element in elements { element.heapIndex = -1 }
        elements = []
    }

    private mutating func siftUp(_ start: Int) {
        var index = start
        let element = elements[index]
        while index > 0 {
            let parent = (index - 1) / 2
            guard element.heapKey < elements[parent].heapKey else { break }
            place(elements[parent], at: index)
            index = parent
        }
        if index != start { place(element, at: index) }
    }

    private mutating func siftDown(_ start: Int) {
        var index = start
        let element = elements[index]
        while true {
            var child = 2 * index + 1
            guard child < elements.count else { break }
            if child + 1 < elements.count, elements[child + 1].heapKey < elements[child].heapKey { child += 1 }
            guard elements[child].heapKey < element.heapKey else { break }
            place(elements[child], at: index)
            index = child
        }
        if index != start { place(element, at: index) }
    }

    private mutating func place(_ element: Element, at index: Int) {
        elements[index] = element
        element.heapIndex = Int32(index)
    }
}

/// A binary heap of values, the smallest first. Its user skips what is not valid any more.
struct MinimumHeap<Element: Comparable> {
    private var elements: [Element] = []

    var first: Element? { elements.first }
    var count: Int { elements.count }

    mutating func insert(_ element: Element) {
        elements.append(element)
        var index = elements.count - 1
        while index > 0 {
            let parent = (index - 1) / 2
            guard element < elements[parent] else { break }
            elements[index] = elements[parent]
            index = parent
        }
        elements[index] = element
    }

    mutating func removeFirst() {
        let last = elements.removeLast()
        guard !elements.isEmpty else {
            elements = []
            return
        }
        var index = 0
        while true {
            var child = 2 * index + 1
            guard child < elements.count else { break }
            if child + 1 < elements.count, elements[child + 1] < elements[child] { child += 1 }
            guard elements[child] < last else { break }
            elements[index] = elements[child]
            index = child
        }
        elements[index] = last
    }

    /// Holds `new` and nothing else. An ascending array is a heap.
    mutating func replace(with new: [Element]) { elements = new.sorted() }
}
