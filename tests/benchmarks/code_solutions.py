"""Solutions to some of LeetCode's contest problems, written by hand: the data have none."""

from __future__ import annotations

SOLUTIONS = {
    "minimum-number-of-operations-to-make-x-and-y-equal": """
class Solution:
    def minimumOperationsToMakeEqual(self, x: int, y: int) -> int:
        seen, layer, steps = {x}, [x], 0
        while True:
            if y in layer:
                return steps
            following = []
            for value in layer:
                ways = [value + 1, value - 1]
                ways += [value // d for d in (5, 11) if value % d == 0]
                for way in ways:
                    if way >= 0 and way not in seen:
                        seen.add(way)
                        following.append(way)
            layer, steps = following, steps + 1
""",
    "divide-an-array-into-subarrays-with-minimum-cost-i": """
class Solution:
    def minimumCost(self, nums: List[int]) -> int:
        return nums[0] + sum(sorted(nums[1:])[:2])
""",
    "find-if-array-can-be-sorted": """
class Solution:
    def canSortArray(self, nums: List[int]) -> bool:
        done, left = [], 0
        while left < len(nums):
            right = left
            while right < len(nums) and bin(nums[right]).count("1") == bin(nums[left]).count("1"):
                right += 1
            done += sorted(nums[left:right])
            left = right
        return done == sorted(nums)
""",
    "count-elements-with-maximum-frequency": """
class Solution:
    def maxFrequencyElements(self, nums: List[int]) -> int:
        counts = Counter(nums)
        most = max(counts.values())
        return sum(count for count in counts.values() if count == most)
""",
    "minimize-length-of-array-using-operations": """
class Solution:
    def minimumArrayLength(self, nums: List[int]) -> int:
        least = min(nums)
        if any(value % least for value in nums):
            return 1
        return (nums.count(least) + 1) // 2
""",
    "find-beautiful-indices-in-the-given-array-ii": """
class Solution:
    def beautifulIndices(self, s: str, a: str, b: str, k: int) -> List[int]:
        def starts(part):
            return [i for i in range(len(s) - len(part) + 1) if s[i:i + len(part)] == part]
        others = starts(b)
        return [i for i in starts(a) if any(abs(i - j) <= k for j in others)]
""",
    "find-polygon-with-the-largest-perimeter": """
class Solution:
    def largestPerimeter(self, nums: List[int]) -> int:
        nums.sort()
        total = sum(nums)
        for side in reversed(nums):
            total -= side
            if total > side:
                return total + side
        return -1
""",
    "divide-array-into-arrays-with-max-difference": """
class Solution:
    def divideArray(self, nums: List[int], k: int) -> List[List[int]]:
        nums.sort()
        parts = [nums[i:i + 3] for i in range(0, len(nums), 3)]
        return parts if all(part[-1] - part[0] <= k for part in parts) else []
""",
    "double-modular-exponentiation": """
class Solution:
    def getGoodIndices(self, variables: List[List[int]], target: int) -> List[int]:
        return [
            i for i, (a, b, c, m) in enumerate(variables)
            if pow(pow(a, b, 10), c, m) == target
        ]
""",
    "remove-adjacent-almost-equal-characters": """
class Solution:
    def removeAlmostEqualCharacters(self, word: str) -> int:
        count, i = 0, 1
        while i < len(word):
            if abs(ord(word[i]) - ord(word[i - 1])) <= 1:
                count, i = count + 1, i + 1
            i += 1
        return count
""",
    "find-the-peaks": """
class Solution:
    def findPeaks(self, mountain: List[int]) -> List[int]:
        return [
            i for i in range(1, len(mountain) - 1)
            if mountain[i - 1] < mountain[i] > mountain[i + 1]
        ]
""",
    "separate-black-and-white-balls": """
class Solution:
    def minimumSteps(self, s: str) -> int:
        steps = ones = 0
        for ball in s:
            if ball == "1":
                ones += 1
            else:
                steps += ones
        return steps
""",
    "matrix-similarity-after-cyclic-shifts": """
class Solution:
    def areSimilar(self, mat: List[List[int]], k: int) -> bool:
        return all(row == row[k % len(row):] + row[:k % len(row)] for row in mat)
""",
    "find-words-containing-character": """
class Solution:
    def findWordsContaining(self, words: List[str], x: str) -> List[int]:
        return [i for i, word in enumerate(words) if x in word]
""",
    "points-that-intersect-with-cars": """
class Solution:
    def numberOfPoints(self, nums: List[List[int]]) -> int:
        return len({point for start, end in nums for point in range(start, end + 1)})
""",
    "maximum-odd-binary-number": """
class Solution:
    def maximumOddBinaryNumber(self, s: str) -> str:
        ones = s.count("1")
        return "1" * (ones - 1) + "0" * (len(s) - ones) + "1"
""",
    "count-visited-nodes-in-a-directed-graph": """
class Solution:
    def countVisitedNodes(self, edges: List[int]) -> List[int]:
        answers = []
        for node in range(len(edges)):
            seen = set()
            while node not in seen:
                seen.add(node)
                node = edges[node]
            answers.append(len(seen))
        return answers
""",
    "apply-operations-on-array-to-maximize-sum-of-squares": """
class Solution:
    def maxSum(self, nums: List[int], k: int) -> int:
        bits = [sum(value >> bit & 1 for value in nums) for bit in range(32)]
        total = 0
        for _ in range(k):
            value = 0
            for bit in range(32):
                if bits[bit]:
                    bits[bit] -= 1
                    value |= 1 << bit
            total += value * value
        return total % (10 ** 9 + 7)
""",
    "account-balance-after-rounded-purchase": """
class Solution:
    def accountBalanceAfterPurchase(self, purchaseAmount: int) -> int:
        return 100 - (purchaseAmount + 5) // 10 * 10
""",
    "prime-pairs-with-target-sum": """
class Solution:
    def findPrimePairs(self, n: int) -> List[List[int]]:
        prime = [False, False] + [True] * n
        for p in range(2, n + 1):
            if prime[p]:
                for multiple in range(p * p, n + 1, p):
                    prime[multiple] = False
        return [[x, n - x] for x in range(2, n // 2 + 1) if prime[x] and prime[n - x]]
""",
    "sum-of-squares-of-special-elements": """
class Solution:
    def sumOfSquares(self, nums: List[int]) -> int:
        return sum(v * v for i, v in enumerate(nums, 1) if len(nums) % i == 0)
""",
    "check-if-array-is-good": """
class Solution:
    def isGood(self, nums: List[int]) -> bool:
        n = len(nums) - 1
        return sorted(nums) == [*range(1, n + 1), n]
""",
}
"""The problem's name in its address, to a solution."""
